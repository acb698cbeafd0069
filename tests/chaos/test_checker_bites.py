"""The whole suite, on products that are broken on purpose: each time the checker has to say so.

The product is copied and one piece of it replaced; where the piece is no longer found the test
fails, so that it cannot go on proving nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from flybridge.bridge.local.feishu.ledger import Ladder
from tests.chaos.casting import Casting, Role
from tests.chaos.checker import violations
from tests.chaos.opening import playing
from tests.chaos.play import Play
from tests.chaos.promises import IN_FLIGHT
from tests.project import ROOT

PACKAGES = ("bridge", "workers", "handlers")
PREFORK_SLOTS, THREADS_SLOTS = 2, 4
FAR = Ladder((3600.0,))
"""Feishu does not push again in time for it to matter."""

pytestmark = pytest.mark.timeout(90)


Piece = tuple[str, str, str]


def broken(directory: Path, *pieces: Piece) -> Path:
    """A copy of the product in which these pieces (file, old text, new text) are replaced."""
    product = directory / "product"
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, product / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copytree(ROOT / "src", product / "src", symlinks=True)
    for name, old, new in pieces:
        text = (product / name).read_text("utf-8")
        assert text.count(old) == 1, f"{name} has changed: {old!r} is not in it once"
        (product / name).write_text(text.replace(old, new), "utf-8")
    return product


async def rules(play: Play) -> set[str]:
    """The rules that this play has broken so far."""
    return {violation.rule for violation in violations(await play.history())}


async def a_publish_arrives_after_its_lease(play: Play) -> None:
    """What a leader sends to Redis arrives when another one has led for a while."""
    first = play.generator.push("chaos.plain")
    assert await play.until(lambda: first.acked, 5.0)
    play.feishu.ledger.ladder = FAR
    play.feishu.ledger.hurry = lambda now: None  # type: ignore[method-assign]
    leader = await play.leader()
    (other,) = set(play.cast.bridges) - {leader}
    with play.hurting("publishes held up", leader):
        play.cast.redis[leader].black_hole()
        late = play.generator.push("chaos.plain")
        assert await play.until(lambda: play.logs[other].has("feishu.connected"), 10.0)
        fresh = play.generator.push("chaos.plain")
        assert await play.until(lambda: fresh.acked, 5.0)
        play.cast.redis[leader].pass_on()
        await play.until(lambda: _in_stream(play, late.event_id), 1.5)


async def an_event_is_delivered_twice(play: Play) -> None:
    play.feishu.faults.duplicate(copies=2)
    push = play.generator.push("chaos.plain")
    assert await play.until(lambda: play.feishu.stats["acked"] == 2, 5.0)
    assert push.acked


async def the_marker_is_lost_while_it_runs(play: Play) -> None:
    """Feishu pushes again what Redis has forgotten that it had, and a worker is busy with."""
    push = play.generator.push("chaos.slow", seconds=3.0)
    assert await play.until(lambda: _deeds(play, push.event_id, "started"), 10.0)
    await _push_as_if_new(play, push.event_id)


async def the_marker_is_lost_after_it_ran(play: Play) -> None:
    push = play.generator.push("chaos.plain")
    assert await play.until(lambda: _recorded(play, push.event_id), 10.0)
    await _push_as_if_new(play, push.event_id)


async def handlers_take_longer_than_the_lease(play: Play) -> None:
    """In both workers, and one has room: whoever looks first takes over what the other one runs."""
    for _ in range(PREFORK_SLOTS + THREADS_SLOTS - 1):
        play.generator.push("chaos.slow", seconds=3.5 * play.settings["event_lease"])
        if await play.until(lambda: _busy(play) == set(play.cast.workers), 0.3):
            break
    assert await play.until(lambda: not play.deeds.open, 35.0)


async def two_events_have_one_key(play: Play) -> None:
    """Both are there before the first can have ended."""
    for _ in range(2):
        play.generator.push("chaos.ordered", key="k", seconds=1.5, fails=False)
    await _all_finished(play)


async def a_handler_hangs_beside_another(play: Play) -> None:
    push = play.generator.push("chaos.hanging", hangs=True)
    assert await play.until(lambda: _deeds(play, push.event_id, "finished") >= 3, 15.0)


async def one_thing_comes_under_two_ids(play: Play) -> None:
    for _ in range(2):
        push = play.generator.push("chaos.business", key="k", seconds=0.0, fails=False)
        assert await play.until(partial(_recorded, play, push.event_id), 10.0)


async def the_replica_falls_asleep(play: Play) -> None:
    pid = play.servers.replica.pid
    with play.hurting("replica asleep", *play.cast.bridges, keeps_nothing=True):
        os.kill(pid, signal.SIGSTOP)
        await play.pause(2 * IN_FLIGHT, 2 * IN_FLIGHT)
        push = play.generator.push("chaos.plain")
        await play.until(lambda: push.acked, 3.0)
    os.kill(pid, signal.SIGCONT)


FENCE = (
    "bridge/publishing/publish.lua",
    "if stored ~= ARGV[1] then",
    "if false then",
)
MARKER = ("bridge/publishing/publish.lua", "if type(earlier) == 'string' then", "if false then")
CLAIM = ("workers/claim/claim.lua", "if holder and holder ~= token then", "if false then")
DONE = (
    "workers/claim/claim.lua",
    "if state == 'done' or state == 'dead' then",
    "if false then",
)
LINES = (
    "workers/intake/line_up.lua",
    "and not is_first(line, id)",
    "and is_first(line, id) == nil",
)
QUEUE = ("workers/claim/claim.lua", "~= ARGV[4] then", "== nil then")
BUSINESS = ("workers/claim/claim.lua", "if not other or other == KEYS[1] then", "if true then")
WAIT = ("bridge/publishing/publish_connection.py", "if not self._durability.command:", "if True:")
INTERRUPTION = (
    "workers/celery_integration/child.py",
    "signal.signal(signal.SIGUSR1, self._interrupt)",
    "self._main = self._main",
)
LAST_WORDS = ("workers/celery_integration/child.py", "if watch.here().all_lost(now):", "if False:")
WAITING_FOR_THREADS = (
    "handlers/calling/threads.py", "                self._rung = self._loop.create_future()\n",
    "                raise\n",
)  # fmt: skip
RENEWAL = ("workers/intake/keeper.py", "                    self._renew()\n", "")

FIRST, SECOND, *BOTH_WORKERS = Casting(("prefork", "threads")).roles
BRIDGES, WORKERS = (FIRST, SECOND), (FIRST, *BOTH_WORKERS)
WAITING, *_ = Casting(durability="replica:1").roles
Fault = Callable[[Play], Awaitable[None]]


@pytest.mark.parametrize(
    ("pieces", "roles", "fault", "expected"),
    [
        pytest.param(
            (FENCE,), BRIDGES, a_publish_arrives_after_its_lease, "terms_grow", id="fence"
        ),
        pytest.param(
            (MARKER,), BRIDGES[:1], an_event_is_delivered_twice,
            "event_is_in_the_streams_once", id="published marker",
        ),
        pytest.param(
            (WAIT,), (WAITING,), the_replica_falls_asleep, "nothing_is_acked_unkept",
            id="wait for the replica",
        ),
        pytest.param(
            (CLAIM,), WORKERS, the_marker_is_lost_while_it_runs, "runs_do_not_overlap", id="claim"
        ),
        pytest.param(
            (DONE,), WORKERS, the_marker_is_lost_after_it_ran, "success_is_recorded_once",
            id="done mark",
        ),
        pytest.param(
            (RENEWAL,), WORKERS, handlers_take_longer_than_the_lease, "runs_do_not_overlap",
            id="renewal",
        ),
        pytest.param(
            (LINES, QUEUE), WORKERS, two_events_have_one_key, "key_keeps_its_order", id="order"
        ),
        pytest.param(
            (INTERRUPTION, LAST_WORDS, WAITING_FOR_THREADS), WORKERS[:2],
            a_handler_hangs_beside_another, "nothing_runs_beside_itself",
            id="end of all that was started",
        ),
        pytest.param(
            (BUSINESS,), WORKERS, one_thing_comes_under_two_ids, "business_key_succeeds_once",
            id="business key",
        ),
    ],
)  # fmt: skip
async def test_without_its_guard_the_promise_is_seen_to_break(
    pieces: tuple[Piece, ...],
    roles: tuple[Role, ...],
    fault: Fault,
    expected: str,
    tmp_path: Path,
) -> None:
    product = broken(tmp_path, *pieces)
    async with playing(tmp_path, 1, product=product, roles=roles, event_lease=1) as play:
        await fault(play)
        assert expected in await rules(play)


async def _all_finished(play: Play) -> None:
    for push in play.generator.pushes:
        assert await play.until(partial(_deeds, play, push.event_id, "finished"), 10.0)


def _in_stream(play: Play, event_id: str) -> bool:
    return any(entry.event_id == event_id for entry in list(play.auditor.entries))


async def _push_as_if_new(play: Play, event_id: str) -> None:
    """Delete the published marker, and have the event pushed once more and run again, if it may."""
    entries = len(play.auditor.entries)
    await play.servers.client().delete(play.cast.stage.keys.published(event_id))
    play.generator.push_again(play.generator.pushes[-1])
    assert await play.until(lambda: len(play.auditor.entries) > entries, 5.0)
    await play.until(lambda: _deeds(play, event_id, "started") > 1, 2.0)
    await play.until(lambda: _deeds(play, event_id, "finished") > 1, 4.0)
    await play.until(lambda: _recorded(play, event_id) > 1, 1.0)


def _busy(play: Play) -> set[str]:
    return {deed.actor for deed in play.deeds.open.values()}


def _deeds(play: Play, event_id: str, name: str) -> int:
    return sum(each.event_id == event_id and each.deed == name for each in play.deeds.deeds)


def _recorded(play: Play, event_id: str) -> int:
    lines = (line for log in play.logs.values() for line in log.settled)
    return sum(each.event_id == event_id and each.recorded for each in lines)
