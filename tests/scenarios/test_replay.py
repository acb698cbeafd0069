"""Promise 4: a dead letter can be looked at and replayed, and is handled once all the same."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
from dataclasses import dataclass
from typing import Any

from flybridge.bridge.local.collector import LocalCollector
from flybridge.bridge.store.streams import Entry
from tests.chaos.proxy import CutProxy
from tests.scenarios.stage import FLYBRIDGE, Stage, message
from tests.waiting import eventually

TYPE = "im.message.receive_v1"
MODULE = "mending"
FAST = 60.0
"""Seconds of event lease where no worker dies: nothing may depend on its end."""


@dataclass
class Told:
    """What a command said."""

    code: int
    out: str
    err: str


async def flybridge(stage: Stage, *arguments: str, **settings: Any) -> Told:
    """Run a command to its end, as an operator would."""
    settings = {"handlers": MODULE, "log_format": "console", **settings}
    ended = await asyncio.to_thread(
        subprocess.run, [FLYBRIDGE, *arguments], cwd=stage.directory,
        env=stage.environment(**settings), capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    return Told(ended.returncode, ended.stdout, ended.stderr)


def publish(stage: Stage, *envelopes: dict[str, Any]) -> list[str]:
    """Put events into their stream as a bridge does, which these scenarios are not about."""
    ids = [str(envelope["header"]["event_id"]) for envelope in envelopes]
    with stage.redis() as redis:
        redis.sadd(stage.keys.types, TYPE)
        for event_id, envelope in zip(ids, envelopes, strict=True):
            redis.xadd(stage.keys.stream(TYPE), fields_of(event_id, json.dumps(envelope)))
    return ids


def fields_of(event_id: str, envelope: str) -> dict[Any, Any]:
    event = Entry(event_id, TYPE, "app", "tk", "2.0", 1, 2, 3, "", "", envelope.encode())
    fields = event.fields()
    return dict(zip(fields[::2], fields[1::2], strict=True))


def mend(stage: Stage) -> None:
    stage.deeds_file.with_name("deeds.jsonl.mended").touch()


async def died(stage: Stage, count: int = 1) -> None:
    await eventually(lambda: len(stage.dead_letters()) == count)


def deeds(stage: Stage, event_id: str, group: str = "workers") -> list[tuple[str, str, int]]:
    return [
        (each["deed"], each["handler"], each["attempt"])
        for each in stage.deeds(event_id=event_id, group=group)
    ]


def audit(stage: Stage) -> list[dict[str, str]]:
    with stage.redis() as redis:
        entries: Any = redis.xrange(stage.keys.audit)
    return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]


async def test_a_dead_letter_is_replayed_to_the_one_handler_that_failed_and_to_no_other_group(
    stage: Stage,
) -> None:
    other = stage.worker("worker-2", "--group", "audit", "--pool", "solo", handlers=MODULE)
    await stage.bridge_and_worker("--pool", "threads", "--concurrency", "2", handlers=MODULE,
                                  event_lease=FAST)  # fmt: skip
    await other.logged("intake.started")
    (event_id,) = stage.push(message())
    await died(stage)
    await eventually(lambda: stage.state(event_id, "audit") == "done")
    before = deeds(stage, event_id)
    assert sorted(before) == [
        ("finished", "sound", 1), ("started", "buggy", 1), ("started", "buggy", 2)
    ]  # fmt: skip

    listed, shown, dry, unknown = await asyncio.gather(
        flybridge(stage, "dlq", "list"),
        flybridge(stage, "dlq", "show", event_id),
        flybridge(stage, "dlq", "replay", event_id, "--dry-run"),
        flybridge(stage, "dlq", "replay", event_id, handlers=""),
    )
    line = f"{event_id}  {TYPE}  attempts  mending:buggy  2         ValueError: the bug"
    assert line in listed.out
    assert listed.out.endswith("1 shown; group workers has 1 dead letter\n")
    assert "succeeded   mending:sound\n" in shown.out
    assert (dry.out, dry.code) == ("would replay 1 of 1\n", 0)
    assert unknown.code == 1
    assert "its handler mending:buggy is not loaded here" in unknown.err
    assert len(stage.dead_letters()) == 1
    assert stage.state(event_id) == "dead"

    mend(stage)
    replayed = await flybridge(stage, "dlq", "replay", event_id)
    assert (replayed.out, replayed.code) == ("replayed 1 of 1\n", 0)
    assert "audit.written" in replayed.err
    await eventually(lambda: stage.state(event_id) == "done")
    assert deeds(stage, event_id) == [*before, ("started", "buggy", 1), ("finished", "buggy", 1)]

    again = await flybridge(stage, "dlq", "replay", event_id)
    assert again.code == 1
    assert "no dead letter of this letter or event id; the event is done by now" in again.err
    assert stage.dead_letters() == []
    assert [(each["action"], each["event_id"]) for each in audit(stage)] == [("replay", event_id)]
    assert len(deeds(stage, event_id, "audit")) == 3
    assert stage.state(event_id, "audit") == "done"


async def test_a_replay_is_a_trace_of_its_own_with_a_link_to_the_first(stage: Stage) -> None:
    with LocalCollector() as collector:
        await stage.bridge_and_worker(
            "--pool", "threads", handlers=MODULE, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url
        )
        (event_id,) = stage.push(message())
        await died(stage)
        (entry,) = stage.entries()
        mend(stage)
        await flybridge(stage, "dlq", "replay", event_id)
        await eventually(lambda: stage.state(event_id) == "done")

        _, first_trace, publish_span, _ = entry["traceparent"].split("-")
        stream = stage.keys.replay("workers", TYPE)
        process = await eventually(
            lambda: [span for span in collector.spans() if span.name == f"process {stream}"]
        )
        (root,) = process
        await eventually(lambda: len(collector.spans(root.trace_id)) == 4)
        below = collector.spans(root.trace_id)
    assert root.trace_id != first_trace
    assert root.parent_id == ""
    assert root.links == ((first_trace, publish_span),)
    assert sorted(span.name for span in below if span.parent_id == root.span_id) == [
        "claim", "handle mending:buggy", "settle"
    ]  # fmt: skip


async def test_a_worker_killed_in_the_middle_of_a_replayed_event_is_made_good_for(
    stage: Stage,
) -> None:
    first = await stage.ready_worker("worker-1", "--concurrency", "1", handlers=MODULE)
    (event_id,) = publish(stage, message("slow 30"))
    await died(stage)
    mend(stage)
    assert (await flybridge(stage, "dlq", "replay", "--all")).code == 0
    await eventually(lambda: ("started", "buggy", 1) in deeds(stage, event_id)[3:])

    first.kill()
    await stage.ready_worker("worker-2", "--pool", "threads", handlers=MODULE)

    await eventually(lambda: stage.state(event_id) == "done")
    assert deeds(stage, event_id)[3:] == [
        ("started", "buggy", 1), ("started", "buggy", 2), ("finished", "buggy", 2)
    ]  # fmt: skip
    assert stage.dead_letters() == []


async def test_replays_keep_below_the_rate_and_what_dies_again_is_a_new_letter(
    stage: Stage,
) -> None:
    await stage.ready_worker("worker-1", "--pool", "threads", "--concurrency", "2", handlers=MODULE,
                                  event_lease=FAST)  # fmt: skip
    event_ids = publish(stage, *(message() for _ in range(6)))
    await died(stage, 6)
    letters = {letter["event_id"] for letter in stage.dead_letters()}

    told = await flybridge(stage, "dlq", "replay", "--all", "--rate", "5")

    assert told.out == "replayed 6 of 6\n"
    times = sorted(int(each["at"]) for each in audit(stage))
    assert times[-1] - times[0] >= 1_000
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 150
    await died(stage, 6)
    await eventually(lambda: stage.states(event_ids) == {"dead": 6})
    assert {letter["event_id"] for letter in stage.dead_letters()} == letters
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    assert all(letter["finished"] == "mending:sound" for letter in stage.dead_letters())


async def test_a_window_of_the_streams_comes_once_more_only_when_asked_for(stage: Stage) -> None:
    mend(stage)
    worker = await stage.ready_worker(
        "worker-1", "--pool", "threads", handlers=MODULE, event_lease=FAST
    )
    event_ids = publish(stage, message(), message())
    await stage.settled(event_ids)

    plain, nobody = await asyncio.gather(
        flybridge(stage, "replay", "--from", "1h", "--type", TYPE),
        flybridge(stage, "replay", "--from", "1h", "--group", "wrokers"),
    )
    assert (plain.out, plain.code) == ("re-fed 0 of 2; left: 2 done by now\n", 0)
    assert nobody.code == 1
    assert "no worker of group wrokers has ever read these events" in nobody.err
    again = await flybridge(stage, "replay", "--from", "1h", "--again")
    assert again.out == "re-fed 2 of 2\n"

    await eventually(lambda: set(stage.counted().values()) == {4})
    await eventually(lambda: stage.states(event_ids) == {"done": 2})
    assert stage.counted() == dict.fromkeys(event_ids, 4)
    assert not worker.lines("claim.lost")
    assert {
        json.loads(entry["envelope"])["header"]["event_id"] for entry in stage.entries()
    } == set(event_ids)


async def test_replies_lost_on_their_way_to_the_operator_double_no_replay(stage: Stage) -> None:
    with stage.redis() as redis:
        redis.sadd(stage.keys.types, TYPE)
        for number in range(3):
            letter = {**fields_of(f"ev{number}", "{}"), "reason": "attempts"}
            redis.xadd(stage.keys.dead("workers"), letter)
        here: Any = redis.connection_pool.connection_kwargs
        async with CutProxy(here["host"], here["port"]) as proxy:
            lost = ("EVALSHA scan", "EVALSHA replay", "EVALSHA purge", "SMEMBERS")
            for command in lost:
                proxy.drop_reply(command)
            replayed = await flybridge(stage, "dlq", "replay", "ev0", "ev1", redis_url=proxy.url)
            purged = await flybridge(stage, "dlq", "purge", "--all", "--yes", redis_url=proxy.url)
            assert dict(proxy.dropped) == dict.fromkeys(lost, 1)
        assert (replayed.out, purged.out) == ("replayed 2 of 2\n", "purged 1 of 1\n")
        assert redis.xlen(stage.keys.replay("workers", TYPE)) == 2
    assert [each["action"] for each in audit(stage)] == ["replay", "replay", "purge"]
    assert stage.dead_letters() == []
