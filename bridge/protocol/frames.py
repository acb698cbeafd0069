"""Encodes and decodes the frames of Feishu's long connection.

Feishu: every binary WebSocket message is exactly one proto2 `pbbp2.Frame`; `_FRAME` below is all of
it. The descriptor is built at import, in a pool of its own: no generated file, no protoc, and no
clash with an SDK in the same process that registers the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError

from flybridge.bridge.errors import FrameInvalid

__all__ = ["CONTROL", "DATA", "Frame", "decode", "encode", "headers", "new"]

CONTROL = 0
DATA = 1

MAX_FRAME = 16 * 1024 * 1024 + 64 * 1024
"""Bytes of one frame; far above what Feishu sends, which cuts events at 61,440 bytes."""

MAX_HEADERS = 64
"""Per frame. Feishu sends seven; 16 MiB of headers would stall the loop for seconds."""

if api_implementation.Type() != "upb":
    raise ImportError(
        f"protobuf runs on its {api_implementation.Type()!r} backend, which is slow and reads bad "
        "frames differently; unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION or take a wheel: "
        "pip install --force-reinstall --only-binary=protobuf protobuf"
    )


class Header(Protocol):
    """A key and a value. Text that is not UTF-8 reads as bytes; see `headers`."""

    key: str
    value: str


class Headers(Protocol):
    """The headers of a frame, in the order of the wire; keys may repeat."""

    def add(self, *, key: str, value: str) -> Header: ...
    def __iter__(self) -> Iterator[Header]: ...
    def __getitem__(self, index: int) -> Header: ...
    def __len__(self) -> int: ...


class Frame(Protocol):
    """One frame. It is the protobuf object itself, so unknown fields survive an echo."""

    seq_id: int
    log_id: int
    service: int
    method: int
    """`CONTROL` or `DATA`."""
    payload_encoding: str
    payload_type: str
    payload: bytes
    log_id_new: str

    @property
    def headers(self) -> Headers: ...
    def IsInitialized(self) -> bool: ...  # noqa: N802 (protobuf's name)
    def SerializeToString(self) -> bytes: ...  # noqa: N802


class _FrameClass(Protocol):
    def __call__(self, **fields: Any) -> Frame: ...
    def FromString(self, data: bytes) -> Frame: ...  # noqa: N802


_Field = descriptor_pb2.FieldDescriptorProto

# Feishu: name, number, label, type. The names do not travel; ours follow PEP 8.
_HEADER = (
    ("key", 1, _Field.LABEL_REQUIRED, _Field.TYPE_STRING),
    ("value", 2, _Field.LABEL_REQUIRED, _Field.TYPE_STRING),
)
_FRAME = (
    ("seq_id", 1, _Field.LABEL_REQUIRED, _Field.TYPE_UINT64),
    ("log_id", 2, _Field.LABEL_REQUIRED, _Field.TYPE_UINT64),
    ("service", 3, _Field.LABEL_REQUIRED, _Field.TYPE_INT32),
    ("method", 4, _Field.LABEL_REQUIRED, _Field.TYPE_INT32),
    ("headers", 5, _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE),
    ("payload_encoding", 6, _Field.LABEL_OPTIONAL, _Field.TYPE_STRING),
    ("payload_type", 7, _Field.LABEL_OPTIONAL, _Field.TYPE_STRING),
    ("payload", 8, _Field.LABEL_OPTIONAL, _Field.TYPE_BYTES),
    ("log_id_new", 9, _Field.LABEL_OPTIONAL, _Field.TYPE_STRING),
)


def _frame_class() -> _FrameClass:
    file = descriptor_pb2.FileDescriptorProto(name="pbbp2.proto", package="pbbp2", syntax="proto2")
    for message, fields in (("Header", _HEADER), ("Frame", _FRAME)):
        descriptor = file.message_type.add(name=message)
        for name, number, label, kind in fields:
            field = descriptor.field.add(name=name, number=number, label=label, type=kind)
            if kind == _Field.TYPE_MESSAGE:
                field.type_name = ".pbbp2.Header"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = message_factory.GetMessageClass(pool.FindMessageTypeByName("pbbp2.Frame"))
    return cast(_FrameClass, found)


_Frame = _frame_class()


def new(
    *,
    service: int,
    method: int,
    headers: Mapping[str, str],
    payload: bytes | None = None,
    seq_id: int = 0,
    log_id: int = 0,
) -> Frame:
    """A frame with these fields; `seq_id` and `log_id` are written even when 0, as proto2 asks."""
    frame = _Frame(seq_id=seq_id, log_id=log_id, service=service, method=method)
    for key, value in headers.items():
        frame.headers.add(key=key, value=value)
    if payload is not None:
        frame.payload = payload
    return frame


def decode(data: bytes) -> Frame:
    """Read one frame.

    Raises:
        FrameInvalid: the bytes are malformed, cut short, too many, or lack a required field.
    """
    if len(data) > MAX_FRAME:
        raise FrameInvalid(f"a frame of {len(data)} bytes is above the limit of {MAX_FRAME}")
    try:
        frame = _Frame.FromString(data)
    except DecodeError:
        raise FrameInvalid(f"{len(data)} bytes are not a protobuf frame") from None
    # The library accepts a frame without its required fields and then refuses to write it back.
    if not frame.IsInitialized():
        raise FrameInvalid(f"a frame of {len(data)} bytes lacks a required field")
    if len(frame.headers) > MAX_HEADERS:
        raise FrameInvalid(f"a frame with more than {MAX_HEADERS} headers")
    return frame


def encode(frame: Frame) -> bytes:
    """Write one frame."""
    return frame.SerializeToString()


def headers(frame: Frame) -> dict[str, str]:
    """The headers by key; the last of a repeated key. Bytes that are not UTF-8 become U+FFFD."""
    pairs = {header.key: header.value for header in frame.headers}
    if bytes in map(type, pairs) or bytes in map(type, pairs.values()):
        return {_text(key): _text(value) for key, value in pairs.items()}
    return pairs


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
