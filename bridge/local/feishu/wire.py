"""The server's half of the long connection: data frames and pongs out, pings and acks in."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flybridge.bridge.errors import FrameInvalid
from flybridge.bridge.protocol import frames

FRAGMENT_SIZE = 61_440
"""Bytes. Feishu: the piece size that has been observed."""


@dataclass(frozen=True, slots=True)
class Ping:
    """The client is alive and wants a pong."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to one push."""

    message_id: str
    code: int
    """0 when the payload is not `{"code": …}`."""
    biz_rt: str | None
    """Feishu: the client's handling time in ms, as text."""
    payload: bytes


@dataclass(frozen=True, slots=True)
class Numbers:
    """The ids of the server that every data frame carries."""

    service_id: int
    sequence: Iterator[int]
    """Gives SeqIDs."""


def data_frames(
    payload: bytes,
    numbers: Numbers,
    *,
    kind: str,
    message_id: str,
    trace_id: str,
    fragment_size: int = FRAGMENT_SIZE,
) -> list[bytes]:
    """One push as the frames that carry it, in order of `seq`."""
    size = max(1, fragment_size)
    pieces = [payload[i : i + size] for i in range(0, len(payload), size)] or [b""]
    timestamp = str(int(time.time() * 1000))
    encoded = []
    for seq, piece in enumerate(pieces):
        headers = {
            "type": kind,
            "message_id": message_id,
            "sum": str(len(pieces)),
            "seq": str(seq),
            "trace_id": trace_id,
            "timestamp": timestamp,
            "instance_id": "local",
        }
        encoded.append(_data_frame(headers, piece, numbers))
    return encoded


def pong(service_id: int, config: Mapping[str, int]) -> bytes:
    """The answer to a ping. Feishu: its payload is ClientConfig."""
    payload = json.dumps(dict(config), separators=(",", ":")).encode()
    return frames.encode(
        frames.new(
            service=service_id, method=frames.CONTROL, headers={"type": "pong"}, payload=payload
        )
    )


def read(data: bytes) -> Ping | Ack | None:
    """What a client sent; None for anything that Feishu would ignore."""
    try:
        frame = frames.decode(data)
    except FrameInvalid:
        return None
    headers = frames.headers(frame)
    if frame.method == frames.CONTROL:
        return Ping() if headers.get("type") == "ping" else None
    return Ack(
        message_id=headers.get("message_id", ""),
        code=_code(frame.payload),
        biz_rt=headers.get("biz_rt"),
        payload=frame.payload,
    )


def _data_frame(headers: Mapping[str, str], piece: bytes, numbers: Numbers) -> bytes:
    number = next(numbers.sequence)
    return frames.encode(
        frames.new(
            service=numbers.service_id,
            method=frames.DATA,
            headers=headers,
            payload=piece,
            seq_id=number,
            log_id=number,
        )
    )


def _code(payload: bytes) -> int:
    try:
        return int(json.loads(payload)["code"])
    except (ValueError, TypeError, KeyError):
        return 0
