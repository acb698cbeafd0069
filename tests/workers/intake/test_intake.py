"""The intake: what it reads is claimed, renewed, settled or given back, whatever Redis does."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from opentelemetry.sdk.resources import Resource
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flybridge.bridge.store.streams import Entry
from flybridge.handlers.registry import Registry
from flybridge.workers.backlog.waiting import Waiting
from flybridge.workers.claim.claims import Busy, Duplicate, Pending, Queued, Run, Settlement
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.group.unhandled import Unhandled
from flybridge.workers.intake.claimer import Claimer
from flybridge.workers.intake.held import Held
from flybridge.workers.intake.intake import BLOCK, PAUSED_BLOCK, Intake
from flybridge.workers.intake.keeper import Keeper, Periods
from flybridge.workers.intake.outages import Outages
from flybridge.workers.intake.settler import Settler
from flybridge.workers.intake.spans import IntakeSpans
from flybridge.workers.routes.coverage import Sighting
from tests.waiting import until
from tests.workers.tasks import tasks

DUE_PERIOD = 0.05
"""Seconds, for the product's are long for a test."""

STREAM = "events:im"
DONE = Outcome(finished=("H",))


def item(event_id: str) -> Pending:
    entry = Entry(event_id, "im", "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return Pending(STREAM, f"{event_id}-0", entry)


def run(event_id: str) -> Run:
    return Run(item(event_id), f"token-{event_id}", 1, {})


class Reader:
    """Streams in memory, and what is pending in them. `failures` are raised by the next reads."""

    def __init__(self) -> None:
        self.presence = self
        self.stalls = SimpleNamespace(look=lambda: None)
        self.streams: tuple[str, ...] = ()
        self.unordered: tuple[str, ...] = ()
        self.ordered: tuple[str, ...] = ()
        self.new_ordered: deque[list[Pending]] = deque()
        self.new: deque[list[Pending]] = deque()
        self.lost: list[Pending] = []
        self.doubted = False
        self.unfinished = False
        self.abandoned: list[Pending] = []
        self.retries: list[Pending] = []
        self.failures: deque[Exception] = deque()
        self.calls: list[tuple[str, Any]] = []

    def follow(self, streams: Sequence[str]) -> None:
        self.streams = self.unordered = tuple(streams)

    def make_groups_again(self) -> None:
        self.calls.append(("make_groups_again", None))

    def read(self, room: int, block: float, caps: Mapping[str, int]) -> list[Pending]:
        if self.failures:
            raise self.failures.popleft()
        self.calls.append(("read", room))
        self.calls.append(("told", (block, dict(caps))))
        if not self.new:
            time.sleep(0.005)
            return []
        return self.new.popleft()

    def read_ordered(self, room: int, caps: Mapping[str, int]) -> list[Pending]:
        return self.new_ordered.popleft() if self.new_ordered else []

    def listen(self, block: float, caps: Mapping[str, int]) -> bool:
        self.calls.append(("listen", block))
        time.sleep(0.005)
        return bool(self.ordered)

    def doubt(self) -> None:
        self.doubted = True

    def own(self, room: int) -> list[Pending]:
        found, self.doubted = self.lost if self.doubted else [], False
        return found[:room]

    def take_over(self, room: int, caps: Mapping[str, int]) -> list[Pending]:
        taken, self.abandoned = self.abandoned, []
        return taken

    def due(self, room: int, caps: Mapping[str, int]) -> list[Pending]:
        self.calls.append(("due", room))
        taken, self.retries = self.retries, []
        return taken

    def renew(self, held: Sequence[Pending]) -> None:
        self.calls.append(("renew", [each.entry.event_id for each in held]))

    def postpone(self, pending: Pending, left: float) -> None:
        self.calls.append(("postpone", (pending.entry.event_id, left)))

    def acknowledge(self, items: Sequence[Pending]) -> None:
        self.calls.append(("acknowledge", [each.entry.event_id for each in items]))

    def leave(self) -> None:
        self.calls.append(("leave", None))

    def sweep(self) -> None:
        self.calls.append(("sweep", None))

    def beat(self) -> None:
        self.calls.append(("beat", None))

    def called(self, name: str) -> list[Any]:
        return [argument for called, argument in list(self.calls) if called == name]


class Clock:
    """Redis', as the test says."""

    steady = True
    looks = 0

    def look(self) -> bool:
        self.looks += not self.steady
        return self.steady


class Guard:
    """Grants every claim that `answers` does not answer otherwise."""

    dead_letters, displaced = "dead", 0

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.claimed: list[str] = []
        self.settlements: list[Settlement] = []
        self.failures: deque[Exception] = deque()
        self.away = False
        self.asked = 0
        """How often settlements were sent."""
        self.taken: set[str] = set()
        """Tokens that another worker has taken over."""

    def claim(self, pending: Sequence[Pending]) -> list[Any]:
        self.claimed += [each.entry.event_id for each in pending]
        return [self.answers.get(each.entry.event_id, run(each.entry.event_id)) for each in pending]

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        self.asked += 1
        if self.failures:
            raise self.failures.popleft()
        if self.away:
            raise RedisConnectionError("gone")
        self.settlements += settlements
        return [each.run.token not in self.taken for each in settlements]

    def renew(self, runs: Sequence[Run]) -> list[bool]:
        if self.away:
            raise RedisConnectionError("gone")
        return [each.token not in self.taken for each in runs]

    def settled(self) -> dict[str, Settlement]:
        return {each.run.pending.entry.event_id: each for each in list(self.settlements)}


@pytest.fixture
def event_lease() -> float:
    return 0.15


@pytest.fixture
def periods() -> Periods:
    return Periods(due=DUE_PERIOD)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def guard() -> Guard:
    return Guard()


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def failures() -> deque[Exception]:
    """Raised when Redis is asked who handles what."""
    return deque()


@pytest.fixture
def steps() -> list[str]:
    return []


@pytest.fixture
def limited() -> dict[str, int]:
    """Types that are limited, by how many of them may run at once."""
    return {}


@pytest.fixture
def waiting(limited: dict[str, int]) -> Waiting:
    return Waiting(tasks(limited), tasks())


@pytest.fixture
def table() -> Registry:
    """The handlers of this worker; at first one for everything."""
    table = Registry()
    table.register(lambda event, context: None, "*", name="H")
    return table


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Worker:
    """The parts of a worker that has begun; Redis is played."""

    def __init__(self, intake: Intake, held: Held, claimer: Claimer, settler: Settler) -> None:
        self.held, self.claimer, self.settler = held, claimer, settler
        self.intake = intake

    def stop(self) -> None:
        self.intake.stop()

    def close(self) -> None:
        self.intake.close()


@pytest.fixture
def intake(
    reader: Reader,
    guard: Guard,
    clock: Clock,
    waiting: Waiting,
    calls: list[str],
    table: Registry,
    failures: deque[Exception],
    steps: list[str],
    event_lease: float,
    periods: Periods,
) -> Iterator[Worker]:
    def streams() -> list[str]:
        steps.append("subscribed")
        return [STREAM]

    class Presence:
        sightings: Sequence[Sighting] = ()

        def look(self) -> Sequence[Sighting]:
            if failures:
                raise failures.popleft()
            return ()

    redis: Any = reader
    guards: Any = guard
    clocks: Any = clock
    complete = threading.Event()
    spans = IntakeSpans(None, Resource.create(), "workers")
    unhandled = Unhandled(table, Presence(), "workers", after=0.0)

    def wake() -> None:
        calls.append("wake")

    held = Held(waiting)
    outages = Outages(redis, lambda: calls.append("disconnect"), complete, DUE_PERIOD)
    settler = Settler(guards, held, outages, spans, waiting, wake, complete)
    claimer = Claimer(guards, redis, held, waiting, settler, unhandled, spans, event_lease, wake)
    keeper = Keeper(
        redis, redis, guards, clocks, held, waiting, outages, claimer, event_lease, periods
    )
    selection: Any = SimpleNamespace(streams=streams)
    intake = Intake(
        selection, redis, redis, claimer, waiting, held, keeper, settler, outages,
        lambda: calls.append("died"),
    )  # fmt: skip
    held.slots = 4
    intake.start(lambda: steps.append("begun"), lambda: None)
    yield Worker(intake, held, claimer, settler)
    intake.stop()
    intake.close()


def ready(waiting: Waiting) -> list[str]:
    return [each.pending.entry.event_id for each in list(waiting.ready)]


def test_what_this_worker_has_no_handler_for_does_not_reach_the_pool(
    intake, guard, waiting, reader, table
):
    table.unregister("H")
    reader.new.append([item("ev1")])
    until(lambda: guard.settled())
    (failure,) = guard.settled()["ev1"].outcome.failed
    assert (failure.reason, guard.settled()["ev1"].outcome.returned) == ("unhandled", False)
    assert (ready(waiting), intake.claimer.unhandled) == ([], 1)


def test_what_nobody_can_say_the_handlers_of_is_not_claimed_until_somebody_can(
    intake, guard, reader, table, failures
):
    table.unregister("H")
    failures.append(RedisConnectionError("gone"))
    reader.lost = [item("ev1")]
    reader.new.append([item("ev1")])
    until(lambda: guard.settled())
    assert guard.claimed == ["ev1"]
    until(lambda: len(intake.held) == 0)


def test_it_has_begun_when_its_group_knows_what_it_handles(intake, steps, reader):
    until(lambda: len(reader.called("read")) > 3)
    assert steps[:2] == ["subscribed", "begun"]
    assert steps.count("begun") == 1


def test_what_is_read_is_claimed_and_the_pool_is_woken(intake, waiting, reader, calls):
    reader.new.append([item("ev1"), item("ev2")])
    until(lambda: ready(waiting) == ["ev1", "ev2"])
    assert calls == ["wake"]
    assert len(intake.held) == 2


def test_what_has_ended_is_settled_and_held_no_more(intake, waiting, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    intake.settler.end(waiting.ready.popleft(), DONE)
    until(lambda: len(intake.held) == 0)
    assert guard.settlements == [Settlement(run("ev1"), DONE)]
    assert intake.settler.settled == 1


def in_line(event_id: str) -> Pending:
    return replace(item(event_id), line="line")


def due_at_once(reader: Reader, event_id: str) -> None:
    """Have this one due for who asks right after a settlement, not for who looks by the clock."""

    def due(room: int, caps: Mapping[str, int]) -> list[Pending]:
        asks = threading.current_thread().name == "flybridge-settle"
        return [in_line(event_id)] if asks else []

    reader.due = due  # type: ignore[method-assign]


def test_what_is_ordered_is_read_beside_what_blocks(intake, waiting, reader):
    reader.ordered = (STREAM,)
    reader.new_ordered.append([in_line("ev1")])
    until(lambda: ready(waiting) == ["ev1"])
    until(lambda: reader.called("listen"))
    assert reader.called("listen")[-1] == BLOCK


def test_the_next_in_line_is_fetched_as_soon_as_the_first_is_settled(
    intake, waiting, reader, guard
):
    guard.answers = {each: replace(run(each), pending=in_line(each)) for each in ("ev1", "ev2")}
    reader.new_ordered.append([in_line("ev1")])
    until(lambda: waiting.ready)
    due_at_once(reader, "ev2")
    intake.settler.end(waiting.ready.popleft(), DONE)
    until(lambda: ready(waiting) == ["ev2"])


def test_the_next_in_line_is_fetched_when_the_first_was_a_duplicate(intake, waiting, reader, guard):
    guard.answers = {"old": Duplicate(in_line("old"))}
    due_at_once(reader, "ev2")
    reader.new_ordered.append([in_line("old")])
    until(lambda: ready(waiting) == ["ev2"])


def test_who_is_queued_is_neither_held_nor_postponed(intake, waiting, reader, guard):
    guard.answers = {"behind": Queued(in_line("behind"))}
    reader.new.append([in_line("behind"), item("ev1")])
    until(lambda: ready(waiting) == ["ev1"])
    assert len(intake.held) == 1
    assert not reader.called("postpone")
    assert not reader.called("acknowledge")


def test_handlers_that_are_skipped_are_counted(intake, waiting, reader, guard):
    guard.answers = {"ev1": replace(run("ev1"), skipped=2)}
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    assert intake.claimer.skipped == 2


def test_a_worker_that_is_full_reads_no_more(intake, waiting, reader, monkeypatch):
    monkeypatch.setattr(
        "flybridge.workers.intake.held.GATHER_DELAY", 5.0
    )  # on a slow machine the two end far apart
    reader.new.append([item(f"ev{number}") for number in range(4)])
    until(lambda: len(waiting.ready) == 4)
    reads = len(reader.called("read"))
    reader.new.append([item("more")])
    intake.settler.end(waiting.ready.popleft(), DONE)
    until(lambda: len(intake.held) == 3)
    assert len(reader.called("read")) == reads
    intake.settler.end(waiting.ready.popleft(), DONE)
    until(lambda: "more" in ready(waiting))
    assert reader.called("read")[reads] == 2


def test_duplicates_are_acknowledged_and_busy_ones_left_for_later(intake, waiting, reader, guard):
    guard.answers = {"old": Duplicate(item("old")), "busy": Busy(item("busy"), 0.7)}
    reader.new.append([item("old"), item("busy"), item("ev1")])
    until(lambda: reader.called("postpone"))
    assert reader.called("acknowledge") == [["old"]]
    assert reader.called("postpone") == [("busy", 0.7)]
    assert ready(waiting) == ["ev1"]
    assert intake.claimer.duplicates == 1


def test_nothing_is_taken_over_and_no_retry_begun_just_after_redis_clock_went_ahead(
    intake, clock, reader, guard, waiting
):
    """Locks have ended by that, and everything seems idle: each holder must renew first."""
    reader.new.append([item("held")])
    until(lambda: waiting.ready)
    clock.steady = False
    until(lambda: clock.looks > 1)
    reader.calls.clear()
    reader.abandoned, reader.retries = [item("ev1")], [item("ev2")]
    until(lambda: reader.called("renew"))
    assert (reader.abandoned, reader.retries) != ([], [])
    assert ready(waiting) == ["held"]
    clock.steady = True
    until(lambda: len(ready(waiting)) == 3)


@pytest.mark.parametrize("periods", [Periods(due=DUE_PERIOD, beat=0.0)])
def test_a_worker_that_is_full_still_says_that_it_is_there(intake, waiting, reader):
    reader.new.append([item(f"ev{number}") for number in range(4)])
    until(lambda: len(ready(waiting)) == 4)
    reader.calls.clear()
    until(lambda: len(reader.called("beat")) > 2)
    intake.stop()
    reader.calls.clear()
    until(lambda: reader.called("beat"))
    intake.close()


def test_what_is_held_is_renewed_unless_another_worker_took_it(intake, reader, guard):
    reader.new.append([item("ours"), item("lost")])
    until(lambda: len(intake.held) == 2)
    guard.taken = {"token-lost"}
    reader.calls.clear()
    until(lambda: len(reader.called("renew")) >= 3)
    assert reader.called("renew")[-1] == ["ours"]


def test_events_of_dead_workers_and_due_retries_are_claimed_too(intake, waiting, reader):
    reader.abandoned = [item("abandoned")]
    reader.retries = [item("retry")]
    until(lambda: sorted(ready(waiting)) == ["abandoned", "retry"])


@pytest.mark.parametrize(
    ("event_lease", "periods"), [(3_600.0, Periods(due=DUE_PERIOD, take_over=0.2))]
)
def test_what_dead_workers_left_is_looked_for_soon_however_long_the_event_lease(
    intake, waiting, reader
):
    """The promise is a take-over within 5 s after the event lease."""
    reader.abandoned = [item("first")]
    until(lambda: ready(waiting) == ["first"])
    reader.abandoned = [item("second")]
    until(lambda: ready(waiting) == ["first", "second"])
    assert Periods().take_over + Periods().due < 5


def test_a_worker_full_of_new_events_has_room_for_some_retries(intake, reader):
    reader.new.append([item(f"ev{number}") for number in range(4)])
    until(lambda: len(intake.held) == 4)
    reader.calls.clear()
    until(lambda: reader.called("due"))
    assert reader.called("due")[-1] == 2
    reader.retries = [item("retry1"), item("retry2")]
    until(lambda: len(intake.held) == 6)
    reader.calls.clear()
    until(lambda: len(reader.called("renew")) >= 2)
    assert not reader.called("due")


@pytest.mark.parametrize(("event_lease", "periods"), [(3.0, Periods(due=1.0))])
@pytest.mark.parametrize("source", ["due", "take_over"])
def test_what_waited_for_long_is_taken_as_fast_as_it_ends(
    intake, waiting, reader, monkeypatch, source
):
    old = [item(f"ev{number}") for number in range(200)]

    def take(room: int, caps: Mapping[str, int]) -> list[Pending]:
        taken, old[:] = old[:room], old[room:]
        return taken

    def work() -> bool:
        while waiting.ready:
            intake.settler.end(waiting.ready.popleft(), DONE)
        return intake.settler.settled == 200

    monkeypatch.setattr(reader, source, take)
    until(work)


def test_a_retry_that_is_due_before_its_last_attempt_is_off_the_books_is_not_forgotten(
    intake, waiting, reader, guard, monkeypatch
):
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    settle = guard.settle

    def late(settlements: Sequence[Settlement]) -> list[bool]:
        recorded = settle(settlements)
        monkeypatch.setattr(guard, "settle", settle)
        reader.retries = [item("ev1")]
        reader.calls.clear()
        until(lambda: len(reader.called("due")) >= 2)
        return recorded

    monkeypatch.setattr(guard, "settle", late)
    intake.settler.end(waiting.ready.popleft(), Outcome(retry_after=0.0))
    until(lambda: guard.claimed == ["ev1", "ev1"])


@pytest.mark.parametrize("event_lease", [3.0])
def test_a_renewal_that_failed_is_repeated_soon(intake, reader, guard, monkeypatch):
    asked: list[float] = []

    def renew(runs: Sequence[Run]) -> list[bool]:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise RedisConnectionError("gone")
        return [True for _ in runs]

    monkeypatch.setattr(guard, "renew", renew)
    reader.new.append([item("ev1")])
    until(lambda: len(asked) == 2)
    assert asked[1] - asked[0] < 0.5


def test_a_settlement_that_redis_did_not_take_is_sent_until_it_does(intake, waiting, reader, guard):
    guard.failures.extend([RedisConnectionError("gone"), RedisConnectionError("gone")])
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    intake.settler.end(waiting.ready.popleft(), DONE)
    until(lambda: len(intake.held) == 0)
    assert [each.outcome for each in guard.settlements] == [DONE]


def test_what_a_lost_reply_held_is_found_and_nothing_is_claimed_twice(intake, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: len(intake.held) == 1)
    reader.lost = [item("ev1"), item("lost")]
    reader.failures.append(RedisConnectionError("gone"))
    until(lambda: len(intake.held) == 2)
    assert sorted(guard.claimed) == ["ev1", "lost"]


def test_what_a_lost_look_for_retries_left_with_us_is_found_too(intake, reader, guard):
    until(lambda: reader.called("due"))
    due = reader.due

    def fail(room: int, caps: Mapping[str, int]) -> list[Pending]:
        reader.due = due
        raise RedisConnectionError("gone")

    reader.lost = [item("lost")]
    reader.due = fail
    until(lambda: guard.claimed == ["lost"])


@pytest.mark.parametrize(
    "refusal", ["NOGROUP No such key", "UNBLOCKED the stream key no longer exists"]
)
def test_groups_are_made_anew_when_redis_has_lost_them(intake, waiting, reader, refusal):
    reader.failures.append(ResponseError(refusal))
    until(lambda: reader.called("make_groups_again"))
    reader.new.append([item("ev1")])
    until(lambda: ready(waiting) == ["ev1"])


@pytest.fixture
def narrow(limited: dict[str, int]) -> None:
    """One event of the type at once."""
    limited["im"] = 1


@pytest.mark.usefixtures("narrow")
def test_who_waits_for_a_limit_keeps_no_other_out(intake, waiting, reader):
    reader.new.append([item(f"ev{number}") for number in range(9)])
    until(lambda: waiting.limits.parked == 9)
    assert len(intake.held) == 9
    reads = len(reader.called("read"))
    until(lambda: len(reader.called("read")) > reads + 2)
    assert reader.called("read")[-1] == intake.held.slots


@pytest.mark.usefixtures("narrow")
def test_a_limited_stream_is_capped_and_asked_again_soon(intake, waiting, reader):
    until(lambda: reader.called("told"))
    # One that starts at once, one that waits.
    assert reader.called("told")[-1] == (BLOCK, {STREAM: 2})
    reader.new.append([item("ev1"), item("ev2")])
    until(lambda: waiting.limits.parked == 2)
    reader.calls.clear()
    until(lambda: reader.called("told"))
    assert reader.called("told")[0] == (PAUSED_BLOCK, {STREAM: 0})
    assert len(reader.called("told")) < 10


@pytest.mark.usefixtures("narrow")
def test_who_waits_for_a_limit_is_renewed_and_given_back_at_the_end(intake, waiting, reader, guard):
    reader.new.append([item("ev1"), item("ev2")])
    until(lambda: waiting.limits.parked == 2)
    until(lambda: reader.called("renew") and reader.called("renew")[-1] == ["ev1", "ev2"])
    intake.stop()
    until(lambda: len(guard.settled()) == 2)
    assert all(each.outcome.returned for each in guard.settlements)


def test_what_another_worker_took_is_not_ours(intake, waiting, reader, guard):
    reader.new.append([item("ours"), item("lost")])
    until(lambda: len(waiting.ready) == 2)
    ours, lost = waiting.ready
    assert intake.held.ours(lost)
    guard.taken = {"token-lost"}
    until(lambda: not intake.held.ours(lost))
    assert intake.held.ours(ours)
    intake.settler.end(ours, DONE)
    until(lambda: not intake.held.ours(ours))


def test_a_claim_is_ours_only_as_long_as_redis_confirmed_it_in_time(intake, waiting, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: len(waiting.ready) == 1)
    (held,) = waiting.ready
    guard.away = True
    until(lambda: not intake.held.ours(held))
    guard.away = False
    until(lambda: intake.held.ours(held))


def test_claims_that_were_lost_are_told_of_in_one_line(intake, waiting, reader, guard):
    reader.new.append([item(f"ev{number}") for number in range(3)])
    until(lambda: len(waiting.ready) == 3)
    guard.taken = {f"token-ev{number}" for number in range(3)}
    with structlog.testing.capture_logs() as lines:
        intake.settler.give_back(waiting.drain())
        until(lambda: len(intake.held) == 0)
    assert [each["count"] for each in lines if each["event"] == "claim.lost"] == [3]


def test_what_has_ended_is_unsettled_until_redis_has_it(intake, waiting, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    guard.away = True
    intake.settler.end(waiting.ready.popleft(), DONE)
    assert intake.settler.unsettled == 1
    until(lambda: guard.asked)
    assert intake.settler.unsettled == 1
    guard.away = False
    until(lambda: intake.settler.unsettled == 0)
    assert guard.settled()["ev1"].outcome == DONE


@pytest.mark.parametrize(
    "refusal",
    [
        ReadOnlyError("You can't write against a read only replica."),
        BusyLoadingError("Redis is loading the dataset in memory"),
        ResponseError("BUSY Redis is busy running a script."),
        ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'"),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
        ClusterDownError("The cluster is down"),
    ],
    ids=lambda error: type(error).__name__ + " " + str(error).split()[0],
)
def test_whatever_redis_refuses_is_asked_again_with_pauses_and_told_once(
    intake, waiting, reader, guard, calls, refusal
):
    with structlog.testing.capture_logs() as lines:
        started = time.monotonic()
        reader.failures.append(refusal)
        guard.failures.append(refusal)
        reader.new.append([item("ev1")])
        until(lambda: waiting.ready)
        intake.settler.end(waiting.ready.popleft(), DONE)
        until(lambda: intake.settler.settled)
        until(lambda: lines and lines[-1]["event"] == "redis.recovered")
    assert time.monotonic() - started >= DUE_PERIOD
    assert guard.settled()["ev1"].outcome == DONE
    troubles = [each["event"] for each in lines if each["event"].startswith("redis.")]
    assert len(troubles) <= 4
    assert troubles.count("redis.recovered") * 2 == len(troubles)
    assert "died" not in calls


def test_who_got_no_answer_on_one_connection_gives_up_the_others(intake, reader, calls):
    reader.failures.append(RedisConnectionError("gone"))
    until(lambda: not reader.failures)
    assert "disconnect" not in calls
    reader.failures.append(RedisTimeoutError("Timeout reading from socket"))
    until(lambda: "disconnect" in calls)


def test_a_leave_that_got_no_answer_is_repeated(intake, reader):
    leave = reader.leave

    def fail() -> None:
        reader.leave = leave
        raise RedisConnectionError("gone")

    reader.leave = fail
    intake.stop()
    intake.close()
    assert reader.called("leave") == [None]


def test_groups_that_cannot_be_made_anew_at_once_do_not_hide_later_troubles(
    intake, waiting, reader
):
    def fail() -> None:
        reader.make_groups_again = lambda: None
        raise ReadOnlyError("no")

    reader.make_groups_again = fail
    reader.failures.append(ResponseError("NOGROUP No such key"))
    with structlog.testing.capture_logs() as lines:
        until(lambda: any(each["event"] == "redis.recovered" for each in lines))
        reader.failures.append(RedisConnectionError("gone"))
        until(lambda: any(each["event"] == "redis.lost" for each in lines))


@pytest.mark.parametrize("periods", [Periods(due=DUE_PERIOD, sweep=0.0)])
def test_consumers_that_are_gone_are_swept_now_and_then(intake, reader):
    until(lambda: reader.called("sweep"))


def test_how_an_attempt_was_settled_is_told_when_debugging(intake, waiting, reader, caplog):
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as lines:
        intake.settler.end(waiting.ready.popleft(), DONE)
        until(lambda: intake.settler.settled)
    (told,) = [each for each in lines if each["event"] == "attempt.settled"]
    assert (told["event_id"], told["verdict"], told["finished"]) == ("ev1", "done", ["H"])
    assert told["recorded"]


def test_a_mistake_of_ours_ends_the_worker_instead_of_half_of_it(intake, reader, calls):
    reader.failures.append(ZeroDivisionError())
    until(lambda: "died" in calls)


def test_who_stops_gives_back_what_has_not_begun_before_anything_else(
    intake, waiting, reader, guard
):
    reader.new.append([item("begun"), item("waiting")])
    until(lambda: len(waiting.ready) == 2)
    begun = waiting.ready.popleft()
    intake.stop()
    until(lambda: "waiting" in guard.settled())
    back = guard.settled()["waiting"]
    assert (back.outcome.returned, back.outcome.retry_after) == (True, 0.0)
    assert len(intake.held) == 1
    intake.settler.end(begun, DONE)
    until(lambda: len(intake.held) == 0)
    reader.new.append([item("new")])
    intake.close()
    assert "new" not in guard.claimed
    assert reader.called("leave")


def test_who_is_told_to_stop_while_waiting_for_room_reads_no_more(intake, reader):
    read = intake.intake._threads["read"]
    before: list[int] = []

    def stop_meanwhile(most: float) -> int:
        if threading.current_thread() is read:
            intake.intake._stopping.set()
            before.append(len(reader.called("read")))
        return 1

    intake.held.wait_for_room = stop_meanwhile
    read.join(5)
    assert [len(reader.called("read"))] == before


def test_what_is_found_while_a_worker_stops_is_given_back(intake, reader, guard):
    looking = threading.Event()

    def find(room: int, caps: Mapping[str, int]) -> list[Pending]:
        looking.set()
        intake.intake._threads["read"].join()
        intake.intake._keeper._closing.wait(0.3)
        reader.due = due
        return [item("late")]

    due = reader.due
    reader.due = find
    assert looking.wait(5)
    intake.stop()
    intake.close()
    assert guard.settled()["late"].outcome.returned


def test_what_is_being_settled_when_a_worker_closes_is_not_settled_twice(
    intake, waiting, reader, guard, monkeypatch
):
    asked, answers, settle = threading.Event(), threading.Event(), guard.settle

    def slow(settlements: Sequence[Settlement]) -> list[bool]:
        asked.set()
        assert answers.wait(5)
        return settle(settlements)

    monkeypatch.setattr(guard, "settle", slow)
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    intake.settler.end(waiting.ready.popleft(), DONE)
    assert asked.wait(5)
    closing = threading.Thread(target=intake.close)
    closing.start()
    until(lambda: intake.settler.is_complete)
    answers.set()
    closing.join(5)
    assert [each.outcome for each in guard.settlements] == [DONE]


def test_what_came_back_to_a_worker_that_stops_is_given_back_as_not_begun(
    intake, waiting, reader, guard
):
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    taken = waiting.ready.popleft()
    intake.stop()
    waiting.put_back([taken])
    intake.close()
    assert guard.settled()["ev1"].outcome.returned


def test_what_is_cut_off_is_for_retry_when_its_process_has_ended(intake, waiting, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    waiting.ready.popleft()
    intake.stop()
    intake.close()
    settlement = guard.settled()["ev1"]
    assert settlement.outcome.retry_after == 2.0
    assert not settlement.outcome.returned
    assert "stopped in the middle" in settlement.outcome.error


def test_a_worker_ends_although_redis_is_away(intake, waiting, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    guard.away = True
    intake.settler.end(waiting.ready.popleft(), DONE)
    intake.stop()
    started = time.monotonic()
    intake.close()
    assert time.monotonic() - started < 4
    assert guard.settlements == []


def test_a_stopping_worker_asks_an_absent_redis_with_pauses(intake, waiting, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: waiting.ready)
    last = waiting.ready.popleft()
    intake.stop()
    guard.failures.extend(RedisConnectionError("gone") for _ in range(3))
    started = time.monotonic()
    intake.settler.end(last, DONE)
    until(lambda: guard.settlements)
    assert time.monotonic() - started >= 3 * DUE_PERIOD
