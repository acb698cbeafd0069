"""The codec against the vectors of the protocol sheet, made with the official SDK's own classes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.errors import FrameInvalid
from flybridge.bridge.protocol import frames

SERVICE = 33554678
DATA_HEADERS = {"type": "event", "message_id": "m1", "sum": "1", "seq": "0", "trace_id": "t1"}
PIECE_HEADERS = {**DATA_HEADERS, "message_id": "m2", "sum": "2"}
CONFIG = b'{"ReconnectCount":-1,"ReconnectInterval":120,"ReconnectNonce":30,"PingInterval":120}'

PING = "0800100018f681801020002a0c0a0474797065120470696e67"
PONG = (
    "0800100018f681801020002a0c0a04747970651204706f6e6742547b225265636f6e6e656374436f756e74223a2d31"
    "2c225265636f6e6e656374496e74657276616c223a3132302c225265636f6e6e6563744e6f6e6365223a33302c2250"
    "696e67496e74657276616c223a3132307d"
)
DATA = (
    "0807100818f681801020012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d312a080a"
    "0373756d1201312a080a037365711201302a0e0a0874726163655f69641202743142077b2261223a317d"
)
ACK_200 = (
    "0807100818f681801020012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d312a080a"
    "0373756d1201312a080a037365711201302a0e0a0874726163655f6964120274312a0b0a0662697a5f727412013342"
    "0c7b22636f6465223a3230307d"
)
ACK_500 = (
    "0807100818f681801020012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d312a080a"
    "0373756d1201312a080a037365711201302a0e0a0874726163655f696412027431420c7b22636f6465223a3530307d"
)
PIECE_0 = (
    "0809100818f681801020012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d322a080a"
    "0373756d1201322a080a037365711201302a0e0a0874726163655f69641202743242057b2261223a"
)
PIECE_1 = (
    "080a100818f681801020012a0d0a047479706512056576656e742a100a0a6d6573736167655f696412026d322a080a"
    "0373756d1201322a080a037365711201312a0e0a0874726163655f6964120274324202317d"
)

Fields = tuple[int, int, int, dict[str, str], bytes | None]
VECTORS: dict[str, Fields] = {
    PING: (0, 0, frames.CONTROL, {"type": "ping"}, None),
    PONG: (0, 0, frames.CONTROL, {"type": "pong"}, CONFIG),
    DATA: (7, 8, frames.DATA, DATA_HEADERS, b'{"a":1}'),
    ACK_200: (7, 8, frames.DATA, {**DATA_HEADERS, "biz_rt": "3"}, b'{"code":200}'),
    ACK_500: (7, 8, frames.DATA, DATA_HEADERS, b'{"code":500}'),
    PIECE_0: (9, 8, frames.DATA, {**PIECE_HEADERS, "trace_id": "t2"}, b'{"a":'),
    PIECE_1: (10, 8, frames.DATA, {**PIECE_HEADERS, "seq": "1", "trace_id": "t2"}, b"1}"),
}


@pytest.mark.parametrize(("vector", "fields"), VECTORS.items())
def test_a_vector_reads_as_its_fields(vector: str, fields: Fields) -> None:
    seq_id, log_id, method, headers, payload = fields
    frame = frames.decode(bytes.fromhex(vector))
    assert (frame.seq_id, frame.log_id, frame.service) == (seq_id, log_id, SERVICE)
    assert (frame.method, frames.headers(frame)) == (method, headers)
    assert frame.payload == (payload or b"")


@pytest.mark.parametrize(("vector", "fields"), VECTORS.items())
def test_its_fields_write_the_vector_byte_for_byte(vector: str, fields: Fields) -> None:
    seq_id, log_id, method, headers, payload = fields
    frame = frames.new(
        service=SERVICE,
        method=method,
        headers=headers,
        payload=payload,
        seq_id=seq_id,
        log_id=log_id,
    )
    assert frames.encode(frame).hex() == vector


@given(
    ids=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    service=st.integers(-(2**31), 2**31 - 1),
    method=st.integers(0, 2),
    headers=st.dictionaries(st.text(), st.text(), max_size=10),
    payload=st.binary(),
)
def test_every_frame_survives_the_wire(
    ids: tuple[int, int], service: int, method: int, headers: dict[str, str], payload: bytes
) -> None:
    frame = frames.new(
        service=service,
        method=method,
        headers=headers,
        payload=payload,
        seq_id=ids[0],
        log_id=ids[1],
    )
    read = frames.decode(frames.encode(frame))
    assert (read.seq_id, read.log_id, read.service, read.method) == (*ids, service, method)
    assert (frames.headers(read), read.payload) == (headers, payload)


@pytest.mark.parametrize("length", range(len(DATA) // 2))
def test_a_frame_cut_short_is_invalid_or_lacks_only_what_is_optional(length: int) -> None:
    whole = bytes.fromhex(DATA)
    try:
        frame = frames.decode(whole[:length])
    except FrameInvalid:
        return
    assert frame.method == frames.DATA
    assert frames.encode(frame) == whole[:length]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff" * 20,
        b"hello, this is text",
        b'{"type":"ping"}',
        b"\x0b" * 5000,  # groups without end
        b"\x08" + b"\xff" * 11,  # a varint without end
        bytes.fromhex("0807100818012001") + b"\x2a\x02\x0a\x00",  # a header without value
        bytes.fromhex("080710081801"),  # no method
    ],
)
def test_bytes_that_are_no_frame_are_invalid(data: bytes) -> None:
    with pytest.raises(FrameInvalid):
        frames.decode(data)


def test_a_frame_above_the_limit_is_invalid() -> None:
    with pytest.raises(FrameInvalid, match="limit"):
        frames.decode(bytes(frames.MAX_FRAME + 1))


def test_a_frame_of_nothing_but_headers_is_invalid() -> None:
    start = bytes.fromhex("0807100818012001")
    header = b"\x2a\x04\x0a\x00\x12\x00"
    frames.decode(start + header * frames.MAX_HEADERS)
    with pytest.raises(FrameInvalid, match="headers"):
        frames.decode(start + header * (frames.MAX_HEADERS + 1))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_invalid_and_nothing_else(data: bytes) -> None:
    try:
        frame = frames.decode(data)
    except FrameInvalid:
        return
    frames.headers(frame)
    frames.encode(frame)


def test_fields_we_do_not_know_survive_the_echo() -> None:
    unknown = b"\x52\x03new" + b"\x58\x2a"  # field 10 bytes, field 11 varint
    frame = frames.decode(bytes.fromhex(DATA) + b"\x4a\x02id" + unknown)
    frame.payload = b'{"code":200}'
    written = frames.encode(frame)
    assert written.endswith(unknown)
    assert frames.decode(written).log_id_new == "id"


def test_headers_that_are_not_text_are_repaired_to_read_and_untouched_in_the_echo() -> None:
    bad = bytes.fromhex("0807100818012001") + b"\x2a\x08\x0a\x02\xff\xfe\x12\x02\xfd!"
    frame = frames.decode(bad)
    assert frames.headers(frame) == {"\ufffd\ufffd": "\ufffd!"}
    assert frames.encode(frame) == bad


def test_the_slow_backend_is_refused_with_the_cure() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import flybridge.bridge.protocol.frames"],
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" in done.stderr
