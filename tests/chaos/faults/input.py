"""What Feishu may send: too much, twice, broken, unknown. Hurts nobody, if all is right."""

from __future__ import annotations

import json
import uuid

from flybridge.bridge.local.feishu.server import SERVICE_ID
from flybridge.bridge.protocol import frames
from tests.chaos.fault import INPUT, Fault
from tests.chaos.generator import envelope
from tests.chaos.play import Play

FLOOD = 2_000
"""Deliveries of one event."""

TOO_LARGE = 11 * 1024 * 1024
LARGE = 1024 * 1024
DEEP = 100_000
DIGITS = 1_000_000


async def poison(play: Play) -> None:
    """Handlers that always raise, and that refuse for good."""
    for _ in range(play.random.randint(1, 5)):
        play.generator.push("chaos.poison")
        play.generator.push("chaos.rejected")


async def duplicates(play: Play) -> None:
    """One event is delivered thousands of times, or many events four times each."""
    if play.random.random() < 0.5:
        play.feishu.faults.duplicate(copies=FLOOD, times=1)
        play.generator.push("chaos.plain")
    else:
        play.feishu.faults.duplicate(copies=4, times=200)


async def large(play: Play) -> None:
    """An envelope above what is allowed, and one that is merely large."""
    nonce = uuid.uuid4().hex
    play.generator.push_raw(envelope(nonce, "chaos.plain", {"padding": "x" * TOO_LARGE}))
    play.generator.push("chaos.plain", padding="x" * LARGE)


async def pieces(play: Play) -> None:
    """Fragments that are missing, out of order, repeated, or of sets that cannot be."""
    play.feishu.faults.drop_fragment(times=2)
    play.generator.push("chaos.plain", padding="x" * 100_000)
    name = uuid.uuid4().hex
    for total, seq in ((3, 2), (3, 0), (3, 0), (10**9, 0), (2, 7), (-1, 0), (4, 1)):
        _send(play, sum=str(total), seq=str(seq), message_id=f"{name}-{total}")


async def malformed_frames(play: Play) -> None:
    """Bytes that are no frame, and frames of no known kind."""
    for _ in range(50):
        play.feishu.faults.send_raw(data=play.random.randbytes(play.random.randrange(200)))
    play.feishu.faults.send_raw(data=b"")
    _send(play)
    _send(play, type="telegram", message_id="x")
    _send(play, type="event")
    _send(play, method=7, type="event")


async def bad_json(play: Play) -> None:
    """Envelopes that are no JSON, or JSON that hurts those who read it."""
    nonce = uuid.uuid4().hex
    for number, text in enumerate(_corpus()):
        play.generator.push_raw(text.replace(b"NONCE", f"{nonce}-{number}".encode()))


async def unknown_types(play: Play) -> None:
    """Event types that nobody knows; and an entry with fields of a newer bridge."""
    for number in range(3):
        play.generator.push(f"chaos.unknown_{number}")
    await play.plant("chaos.plain", {"compression": "none", "shard": "7"})


def _corpus() -> list[bytes]:
    def event(body: bytes) -> bytes:
        header = b'"header":{"event_id":"NONCE","event_type":"chaos.bad","app_id":"a"}'
        return b'{"schema":"2.0",' + header + b',"event":' + body + b"}"

    return [
        b"NONCE", b"[NONCE", b'{"NONCE":', b'"NONCE"', b'["NONCE"]', b"{}NONCE",
        b'{"schema":"2.0","NONCE":1}', b'{"schema":"3.0","header":{},"NONCE":1}',
        b'\xff\xfe{"NONCE":1}', b"\x00NONCE",
        b'{"NONCE":' + b"[" * DEEP,
        event(b"[" * DEEP + b"]" * DEEP),
        event(b'{"a":' * 5000 + b"1" + b"}" * 5000),
        event(b'{"number":' + b"9" * DIGITS + b"}"),
        event(b'{"number":NaN}'), event(b'{"a":1,"a":2}'), event(b'{"text":"\\ud800"}'),
        event(b'"text"'), event(b"null"), event(b"[]"),
        event(b'{"text":"\xff"}'),
        event(json.dumps({str(n): n for n in range(20_000)}).encode()),
    ]  # fmt: skip


def _send(play: Play, *, method: int = frames.DATA, **headers: str) -> None:
    payload = uuid.uuid4().bytes
    told = {"type": "event", **headers} if headers else {}
    frame = frames.new(service=SERVICE_ID, method=method, headers=told, payload=payload)
    play.feishu.faults.send_raw(data=frames.encode(frame))


FAULTS = (
    Fault(18, "poison", poison, INPUT),
    Fault(19, "duplicates", duplicates, INPUT),
    Fault(20, "large", large, INPUT),
    Fault(20, "pieces", pieces, INPUT),
    Fault(21, "malformed frames", malformed_frames, INPUT),
    Fault(22, "bad JSON", bad_json, INPUT),
    Fault(26, "unknown types", unknown_types, INPUT),
)
