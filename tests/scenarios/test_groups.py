"""Promise: a group misses no event while its workers are away, until an operator forgets it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.scenarios.stage import FLYBRIDGE, Actor, Stage, message
from tests.waiting import eventually

IM = "im.message.receive_v1"

UNHEARD_OF = "im.unheard_of.created_v1"
"""No stream of this name is there before the first event; all of `im.*` is for its handlers."""

QUIET = "im.chat.updated_v1"
"""The handlers' workers make this stream at their start."""

ELSEWHERE = "vc.unheard_of.created_v1"
"""Likewise, but of another queue, and the stream that a round of trimming comes to last."""

RETENTION = 1.0
"""Seconds; less is refused."""

LONG = 3600.0
"""Seconds of a retention that no scenario sees the end of."""

TRIMMED = 10.0
"""Seconds until what may go is gone."""

AUDITING = """
import json, os
from flybridge.handlers import Retry, handles

@handles("im.*")
def keep(event, context):
    if event.body["message"]["content"] == json.dumps({"text": "wait"}):
        raise Retry(after=600)
    deed = {"deed": "finished", "handler": "keep", "event_id": event.id}
    with open(os.environ["DEEDS"], "a") as deeds:
        deeds.write(json.dumps(deed) + "\\n")
"""
"""The handler of the group `audit`; that of `workers` are those of `acting`."""

THREADS = ("--pool", "threads", "--concurrency", "1")


@dataclass(frozen=True)
class Row:
    """What `flybridge groups list` says of a group."""

    streams: int
    pending: int
    unread: int
    workers: int
    reads: list[str]


async def groups(stage: Stage, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `flybridge groups …`, to which no terminal is attached."""
    ended = await asyncio.to_thread(
        subprocess.run, [FLYBRIDGE, "groups", *arguments], cwd=stage.directory,
        env=stage.environment(log_format="console"), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


async def listed(stage: Stage) -> dict[str, Row]:
    code, output, errors = await groups(stage, "list")
    assert code == 0, errors
    rows = [line.split() for line in output.splitlines()[1:]]
    return {name: Row(*map(int, fields[:4]), fields[4:]) for name, *fields in rows}


async def both_groups(stage: Stage, retention: float) -> Actor:
    """A bridge, a worker of `workers`, and one of `audit` for `im` only, which is returned."""
    (stage.directory / "auditing.py").write_text(AUDITING)
    auditor = auditing(stage, "audit-1")
    await stage.bridge_and_worker(*THREADS, retention=retention)
    await begun(stage, auditor)
    return auditor


def auditing(stage: Stage, name: str, *arguments: str) -> Actor:
    told = (*THREADS, "--queues", "im", *arguments)
    return stage.worker(name, *told, group="audit", handlers="auditing")


async def begun(stage: Stage, auditor: Actor) -> None:
    """It has told for what it is to be waited for, and reads."""
    await auditor.logged("intake.started")
    await eventually(lambda: "audit|queue:im" in subscriptions(stage))
    await eventually(lambda: joined(stage, IM) >= {"audit"})


async def stopped(auditor: Actor) -> None:
    auditor.send(signal.SIGTERM)
    assert await auditor.ended() == 0


def subscriptions(stage: Stage) -> set[str]:
    with stage.redis() as redis:
        members: Any = redis.smembers(stage.keys.subscriptions)
    return {member.decode() for member in members}


def joined(stage: Stage, event_type: str) -> set[str]:
    """The groups that are there in a stream."""
    with stage.redis() as redis:
        if not redis.exists(stage.keys.stream(event_type)):
            return set()
        infos: Any = redis.xinfo_groups(stage.keys.stream(event_type))
    return {info["name"].decode() for info in infos}


def known_types(stage: Stage) -> set[str]:
    """Those of which an event has come."""
    with stage.redis() as redis:
        members: Any = redis.smembers(stage.keys.types)
    return {member.decode() for member in members}


def of_type(event_type: str) -> dict[str, Any]:
    envelope = message()
    envelope["header"]["event_type"] = event_type
    return envelope


def held(stage: Stage, event_type: str) -> list[str]:
    """The ids of the events that are in a stream."""
    return [entry["event_id"] for entry in stage.entries(event_type)]


def kept(stage: Stage) -> Counter[str]:
    """Event id -> how often the handler of `audit` has handled it."""
    return Counter(deed["event_id"] for deed in stage.deeds("finished", handler="keep"))


async def a_round_of_trimming(stage: Stage) -> None:
    """Whatever was acknowledged before this is due, and has had its turn, when this returns."""
    (event_id,) = stage.push(of_type(ELSEWHERE))
    await eventually(lambda: held(stage, ELSEWHERE) == [event_id])
    await eventually(lambda: held(stage, ELSEWHERE) == [], within=TRIMMED)


async def test_a_group_that_is_away_misses_nothing_until_it_is_forgotten(stage: Stage) -> None:
    auditor = await both_groups(stage, RETENTION)
    rows, refusal = await asyncio.gather(listed(stage), groups(stage, "forget", "audit", "--yes"))
    row = rows["audit"]
    assert (row.pending, row.unread, row.workers, row.reads) == (0, 0, 1, ["queue:im"])
    code, output, errors = refusal
    assert (code, output) == (1, "")
    assert "group audit has 1 workers at work (" in errors
    assert "audit|queue:im" in subscriptions(stage)

    waiting, done = stage.push(message("wait"), message())
    await eventually(lambda: stage.state(waiting, "audit") == "retry")
    await eventually(lambda: stage.state(done, "audit") == "done")
    await stopped(auditor)
    missed = stage.push(message(), message(), of_type(UNHEARD_OF))
    await stage.settled([waiting, done, *missed])
    await a_round_of_trimming(stage)
    assert held(stage, IM)[-2:] + held(stage, UNHEARD_OF) == missed
    assert joined(stage, UNHEARD_OF) == {"workers"}
    rows = await listed(stage)
    assert rows.keys() == {"audit", "workers"}
    assert (rows["audit"].pending, rows["audit"].unread, rows["audit"].workers) == (1, 3, 0)
    row = rows["workers"]
    assert (row.pending, row.unread, row.workers, row.reads) == (0, 0, 1, ["*"])

    auditor = auditing(stage, "audit-2")
    await eventually(lambda: stage.states(missed, "audit") == {"done": 3})
    assert kept(stage) == dict.fromkeys([done, *missed], 1)
    await eventually(lambda: held(stage, UNHEARD_OF) == [], within=TRIMMED)
    await stopped(auditor)

    code, output, errors = await groups(stage, "forget", "audit", "--yes")
    assert (code, output.startswith("audit has left ")) == (0, True), errors
    assert joined(stage, QUIET) == {"workers"}
    stage.push(of_type(QUIET))
    await eventually(lambda: QUIET in known_types(stage))
    streams = (IM, QUIET, UNHEARD_OF)
    await eventually(lambda: [held(stage, each) for each in streams] == [[], [], []], TRIMMED)
    assert subscriptions(stage) == {"workers|*"}


async def test_a_forgotten_group_that_comes_back_is_given_what_it_is_told_to_begin_with(
    stage: Stage,
) -> None:
    """And does not handle again what it had handled."""
    auditor = await both_groups(stage, LONG)
    (done,) = stage.push(message())
    await eventually(lambda: stage.state(done, "audit") == "done")
    await stopped(auditor)
    missed = stage.push(message(), of_type(UNHEARD_OF))
    await stage.settled(missed)
    code, _, errors = await groups(stage, "forget", "audit", "--yes")
    assert code == 0, errors
    assert joined(stage, IM) == joined(stage, UNHEARD_OF) == {"workers"}
    later = stage.push(message())
    await stage.settled(later)

    auditor = auditing(stage, "audit-2", "--from", "all")
    await begun(stage, auditor)

    await eventually(lambda: stage.states([*missed, *later], "audit") == {"done": 3})
    await eventually(lambda: not stage.pending(group="audit"))
    assert kept(stage) == dict.fromkeys([done, *missed, *later], 1)
    assert "audit|queue:im" in subscriptions(stage)
    line = await auditor.logged("group.new")
    assert (line["old_events"], line["left_out"], line["other_groups"]) == (4, 0, "workers")


async def test_a_new_group_is_given_no_history_and_misses_nothing_that_comes(stage: Stage) -> None:
    """The first one is given what waited for it; a second one begins now, in each kind of
    worker, and all of a type that comes later; a window of the past is there for the asking."""
    (stage.directory / "auditing.py").write_text(AUDITING)
    await stage.leader(retention=LONG)
    before = stage.push(message(), message())
    await eventually(lambda: len(stage.entries()) == 2)
    worker = stage.worker("worker-1", *THREADS)
    line = await worker.logged("group.new", level="warning")
    assert (line["old_events"], line["start_from"]) == (2, "auto")
    await stage.settled(before)

    celery = (
        sys.executable,
        "-m",
        "celery",
        "-A",
        "flybridge.workers.app",
        "worker",
        "-P",
        "threads",
        "-c",
    )
    notifiers = [
        auditing(stage, "audit-1"),
        stage.run("audit-2", *celery, "1", "-Q", "im", group="mail", handlers="auditing",
                  start_from="now"),
        stage.run("audit-3", *celery, "1", "-Q", "im", group="mail", handlers="auditing",
                  start_from="now"),
    ]  # fmt: skip
    for each in notifiers:
        await each.logged("intake.started")
    after = stage.push(message(), of_type(UNHEARD_OF), of_type(QUIET))
    for group in ("audit", "mail"):
        await eventually(lambda group=group: stage.states(after, group) == {"done": 3})
        assert stage.states(before, group) == {"": 2}
    assert kept(stage) == dict.fromkeys(after, 2)
    line = await notifiers[0].logged("group.new", level="warning")
    assert (line["old_events"], line["left_out"]) == (0, 2)
    told = [line for each in notifiers[1:] for line in each.lines("group.new")]
    assert {(line["left_out"], line["start_from"]) for line in told} == {(2, "now")}

    window = "flybridge replay --from 2h --group audit"
    assert window in line["hint"]
    ended = await asyncio.to_thread(
        subprocess.run, [FLYBRIDGE, *window.split()[1:]], cwd=stage.directory,
        env=stage.environment(), capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    await eventually(lambda: stage.states(before, "audit") == {"done": 2})
    assert stage.states(before, "mail") == {"": 2}
