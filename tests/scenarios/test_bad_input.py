"""Whatever comes in by the socket: the connection lives, and what can be kept is kept."""

from __future__ import annotations

import json
from typing import Any

import psutil
import pytest

from flybridge.bridge.protocol import frames
from tests.scenarios.ops_port import OpsPort
from tests.scenarios.stage import Actor, Stage, message
from tests.waiting import eventually

MIB = 1024 * 1024
GROWTH = 150 * MIB
"""Bytes by which the bridge may grow over all of this."""

DIGITS = "1" * 10**6


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
        await eventually(lambda: expected.items() <= self.ops.status()["frames"].items())

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
async def sentry(stage: Stage) -> Sentry:
    ops = OpsPort()
    bridge = await stage.leader(ops_port=ops.port)
    return Sentry(stage, bridge, ops)


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


async def test_what_is_no_frame_or_of_no_known_kind_is_counted_and_buried(sentry: Sentry) -> None:
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

    sentry.send(frames.encode(frames.new(service=1, method=7, headers={})))
    sentry.send(data_frame(type="gossip"))
    sentry.send(control_frame(type="gossip"))
    sentry.send(control_frame(type="ping"))

    await sentry.counted(method_unknown=1, type_unknown=1, control_unknown=1, ping=1)
    await eventually(lambda: sentry.buried("method_unknown") and sentry.buried("type_unknown"))
    await sentry.unharmed()


async def test_impossible_fragments_are_counted_and_buried(sentry: Sentry) -> None:
    for total in ("257", "999999999", "1" * 100_000, "-1", "zwei", ""):
        sentry.send(data_frame(sum=total))
    for seq in ("3", "4", "999999999", "-1", "", DIGITS):
        sentry.send(data_frame(sum=3, seq=seq))
    sentry.send(data_frame(sum=3, message_id=""))

    await sentry.counted(sum_invalid=6, seq_invalid=6, fragment_anonymous=1)
    await eventually(lambda: len(sentry.buried("seq_invalid")) == 6)
    assert len(sentry.buried("sum_invalid")) == 6
    assert max(len(letter["headers"]) for letter in sentry.buried("seq_invalid")) < 10_000
    await sentry.unharmed()


async def test_fragments_that_are_never_completed_take_no_more_than_their_room(
    sentry: Sentry,
) -> None:
    for number in range(80):
        sentry.send(data_frame(b"x", sum=3, message_id=f"m{number}"))
    await sentry.counted(fragment=64, sets_full=16)

    for number in range(64):
        sentry.send(data_frame(b"x" * 2 * MIB, sum=3, seq=1, message_id=f"m{number}"))
    await sentry.counted(fragment=64 + 31, sets_full=16 + 33)
    await eventually(lambda: len(sentry.buried("sets_full")) == 16 + 33)
    await sentry.unharmed()


async def test_a_flood_of_large_garbage_leaves_only_its_beginnings(sentry: Sentry) -> None:
    for _ in range(200):
        sentry.send(b"\xff" * MIB)

    await sentry.counted(invalid=200)
    await eventually(lambda: len(sentry.buried("invalid")) == 200)
    assert {int(letter["size"]) for letter in sentry.buried("invalid")} == {MIB}
    assert max(len(letter["envelope"]) for letter in sentry.buried("invalid")) == 64 * 1024
    await sentry.unharmed()


def envelope(header: bytes, event: bytes = b"{}") -> bytes:
    return b'{"schema":"2.0","header":%b,"event":%b}' % (header, event)


def typed(event_type: str) -> bytes:
    """An envelope of this type, with an id of its own."""
    return json.dumps(
        {
            "schema": "2.0",
            "header": {"event_id": f"id of {event_type[:9]}", "event_type": event_type},
            "event": {},
        }
    ).encode()


BURIED = {
    "nothing": (b"", "decode"),
    "no JSON": (b"<html>busy</html>", "decode"),
    "UTF-16": ('{"schema":"2.0"}'.encode("utf-16"), "decode"),
    "100,000 objects deep": (b'{"event":' * 100_000 + b"1" + b"}" * 100_000, "decode"),
    "100,000 arrays deep": (
        envelope(b'{"event_type":"a"}', b"[" * 100_000 + b"]" * 100_000),
        "decode",
    ),
    "a time of a million digits": (
        envelope(b'{"event_type":"a","create_time":%b}' % DIGITS.encode()),
        "schema",
    ),
    "no envelope": (b"[]", "schema"),
    "no type": (envelope(b'{"event_id":"e"}'), "schema"),
    "encrypted": (b'{"encrypt":"FIAfJPGRmFZWkaxPQ1Xr"}', "encrypted"),
    "no header": (envelope(b"null"), "schema"),
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
    (large,) = sentry.buried("too_large")
    assert len(large["envelope"]) == int(large["size"]), "kept whole"
    await sentry.unharmed()


ODD = {
    "no id": (envelope(b'{"event_type":"im.odd"}'), "im.odd"),
    "an id of controls": (envelope(rb'{"event_id":"\r\n \u0000","event_type":"im.odd"}'), "im.odd"),
    "a number of a million digits": (
        envelope(b'{"event_id":"n","event_type":"im.odd"}', DIGITS.encode()),
        "im.odd",
    ),
    "an unknown type": (typed("im.newly.invented_v9"), "im.newly.invented_v9"),
    "a type like a path": (typed("../../etc/passwd"), "other"),
    "a type like a key": (typed("{other}:lease"), "other"),
    "a type of controls": (typed("im\r\nDEL *\x00"), "other"),
    "a type of 10,000 letters": (typed("x" * 10_000), "other"),
    "a type in Chinese": (typed("消息"), "other"),
    "10 MB": (json.dumps(message("x" * 10_000_000)).encode(), "im.message.receive_v1"),
}


async def test_odd_events_are_published_as_they_came(sentry: Sentry) -> None:
    pushes = [sentry.stage.feishu.push(payload) for payload, _ in ODD.values()]

    await eventually(lambda: all(push.acked for push in pushes))
    for name, (payload, stream) in ODD.items():
        envelopes = [entry["envelope"] for entry in sentry.stage.entries(stream)]
        assert payload.decode() in envelopes, name
    assert sentry.ops.status()["outcomes"] == {"published": len(ODD)}
    assert sentry.stage.dead_letters("bridge") == []
    await sentry.unharmed()


async def test_events_with_damaged_characters_are_handled(stage: Stage) -> None:
    await stage.bridge_and_worker()
    whole = json.dumps(message("ordinary")).encode()
    damaged = [
        whole.replace(b"ordinary", cut) for cut in (rb"cut\ud83d", b"cut\xe6\x9d", b"cut\xff")
    ]
    envelopes = [
        payload.replace(json.loads(whole)["header"]["event_id"].encode(), b"d%d" % number)
        for number, payload in enumerate(damaged)
    ]
    for payload in envelopes:
        stage.feishu.push(payload)
    await stage.settled(["d0", "d1", "d2"])
    assert stage.counted("finished") == {"d0": 1, "d1": 1, "d2": 1}
    with stage.redis() as redis:
        stored: Any = redis.xrange(stage.keys.stream("im.message.receive_v1"))
    assert {fields[b"envelope"] for _, fields in stored} == set(envelopes), "untouched"
