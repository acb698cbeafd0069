"""Whatever comes in by the socket: the connection lives, and what can be kept is kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from bridge import frames
from bridge.local.samples import sample
from tests.scenarios.ops_port import OpsPort
from tests.scenarios.stage import Actor, Stage, eventually, message

MIB = 1024 * 1024
GROWTH = 150 * MIB
"""Bytes by which the bridge may grow over all of this."""

DIGITS = "1" * 10**6
EVENT_TYPE = "im.message.receive_v1"


class Sentry:
    """A leader, and what must not change while bad input comes in."""

    def __init__(self, stage: Stage, bridge: Actor, ops: OpsPort) -> None:
        self.stage, self.ops = stage, ops
        self._memory = psutil.Process(bridge.pid)
        self._resident = self._memory.memory_info().rss
        (self._connection,) = stage.feishu.connections

    def send(self, data: bytes) -> None:
        self.stage.feishu.faults.send_raw(data=data)

    async def counted(self, **expected: int) -> None:
        """Wait until `/status` shows these counts of frames."""
        await eventually(
            lambda: expected.items() <= self.ops.status()["frames"].items(),
        )

    async def unharmed(self) -> None:
        """An ordinary event goes through, on the same connection, and memory is bounded."""
        push = self.stage.feishu.push(message())
        await eventually(lambda: push.acked)
        assert [attempt.ending for attempt in push.attempts] == ["acked"]
        assert list(self.stage.feishu.connections) == [self._connection]
        assert self.ops.status()["connects"] == 1
        assert self._memory.memory_info().rss - self._resident < GROWTH

    def buried(self, reason: str) -> list[dict[str, str]]:
        return [each for each in self.stage.dead_letters("bridge") if each["reason"] == reason]


@pytest.fixture
async def sentry(stage: Stage) -> AsyncIterator[Sentry]:
    ops = OpsPort()
    bridge = await stage.leader(ops_port=ops.port)
    sentry = Sentry(stage, bridge, ops)
    yield sentry
    await sentry.unharmed()


def data_frame(payload: bytes = b"{}", **headers: Any) -> bytes:
    told = {"type": "event", "message_id": "m1", "sum": "1", "seq": "0", **headers}
    return frames.encode(
        frames.new(
            service=1,
            method=frames.DATA,
            headers={name: str(value) for name, value in told.items()},
            payload=payload,
        )
    )


def control_frame(**headers: str) -> bytes:
    return frames.encode(frames.new(service=1, method=frames.CONTROL, headers=headers))


async def test_what_is_no_frame_is_counted_and_buried(sentry: Sentry) -> None:
    whole = data_frame(b"x" * 100)
    garbage = [
        b"",
        b"\xff" * 100,
        b"\x00",
        b"not protobuf at all",
        whole[:-1],
        whole[: len(whole) // 2],
    ]
    for data in garbage:
        sentry.send(data)

    await sentry.counted(invalid=len(garbage))
    await eventually(lambda: len(sentry.buried("invalid")) == len(garbage))


async def test_frames_of_no_known_kind_are_counted(sentry: Sentry) -> None:
    sentry.send(frames.encode(frames.new(service=1, method=7, headers={})))
    sentry.send(data_frame(type="gossip"))
    sentry.send(control_frame(type="gossip"))
    sentry.send(control_frame(type="ping"))

    await sentry.counted(method_unknown=1, type_unknown=1, control_unknown=1, ping=1)
    await eventually(lambda: sentry.buried("method_unknown") and sentry.buried("type_unknown"))


async def test_impossible_fragments_are_counted_and_buried(sentry: Sentry) -> None:
    for total in ("257", "999999999", "1" * 100_000, "-1", "zwei", ""):
        sentry.send(data_frame(sum=total))
    for seq in ("3", "4", "999999999", "-1", "", DIGITS):
        sentry.send(data_frame(sum=3, seq=seq))
    sentry.send(data_frame(sum=3, message_id=""))

    await sentry.counted(sum_invalid=6, seq_invalid=6, fragment_anonymous=1)
    await eventually(lambda: len(sentry.buried("seq_invalid")) == 6)
    assert len(sentry.buried("sum_invalid")) == 6


async def test_fragments_that_are_never_completed_take_no_more_than_their_room(
    sentry: Sentry,
) -> None:
    piece = b"x" * MIB
    for number in range(80):
        sentry.send(data_frame(piece, sum=2, message_id=f"m{number}"))

    await sentry.counted(fragment=64, sets_full=16)
    await eventually(lambda: len(sentry.buried("sets_full")) == 16)


BURIED = {
    "invalid UTF-8": (b'{"schema":"2.0","header":{"event_type":"a"},"event":"\xff\xfe"}', "decode"),
    "no JSON": (b"<html>busy</html>", "decode"),
    "nothing": (b"", "decode"),
    "100,000 levels": (b'{"event":' * 100_000 + b"1" + b"}" * 100_000, "decode"),
    "no envelope": (b"[]", "schema"),
    "no type": (b'{"schema":"2.0","header":{"event_id":"e"},"event":{}}', "schema"),
    "unknown schema": (b'{"schema":"3.0","header":{"event_type":"a"},"event":{}}', "schema"),
    "11 MB": (json.dumps(message("x" * 11_000_000)).encode(), "too_large"),
}


async def test_events_that_cannot_be_read_are_acked_and_buried_with_their_reason(
    sentry: Sentry,
) -> None:
    pushes = [sentry.stage.feishu.push(payload) for payload, _ in BURIED.values()]

    await eventually(lambda: all(push.acked for push in pushes))
    letters = sentry.stage.dead_letters("bridge")
    found = {(letter["reason"], int(letter["size"])) for letter in letters}
    assert found == {(reason, len(payload)) for payload, reason in BURIED.values()}
    assert sentry.ops.status()["outcomes"] == {"buried": len(BURIED)}


def odd(**header: Any) -> bytes:
    envelope = sample(EVENT_TYPE)
    envelope["header"].update(header)
    return json.dumps(envelope).encode()


def with_digits(payload: bytes) -> bytes:
    return payload.replace(b'"DIGITS"', DIGITS.encode())


ODD = {
    "no id": (odd(event_id=None), EVENT_TYPE),
    "a time of a million digits": (with_digits(odd(create_time="DIGITS")), EVENT_TYPE),
    "an unknown type": (odd(event_type="im.newly.invented_v9"), "im.newly.invented_v9"),
    "a type of a path": (odd(event_type="../../etc/passwd"), "other"),
    "a type of a key": (odd(event_type="{other}:lease"), "other"),
    "a type of controls": (odd(event_type="im\r\nDEL *\x00"), "other"),
    "a type of 10,000 letters": (odd(event_type="x" * 10_000), "other"),
    "a type of words": (odd(event_type="消息"), "other"),
    "10 MB": (json.dumps(message("x" * 10_000_000)).encode(), EVENT_TYPE),
}


async def test_odd_events_are_published_as_they_came(sentry: Sentry) -> None:
    pushes = [sentry.stage.feishu.push(payload) for payload, _ in ODD.values()]

    await eventually(lambda: all(push.acked for push in pushes))
    for payload, stream in ODD.values():
        envelopes = [entry["envelope"] for entry in sentry.stage.entries(stream)]
        assert payload.decode() in envelopes
    assert sentry.ops.status()["outcomes"] == {"published": len(ODD)}
    assert sentry.stage.dead_letters("bridge") == []
