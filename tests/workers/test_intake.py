"""The intake: what it reads is claimed, renewed, settled or given back, whatever Redis does."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from bridge.streams import Entry
from workers.guard import Busy, Duplicate, Pending, Run, Settlement
from workers.intake import DUE_PERIOD, Intake
from workers.outcomes import Outcome
from workers.spans import IntakeSpans

STREAM = "events:im"
DONE = Outcome(finished=("H",))


def item(event_id: str) -> Pending:
    entry = Entry(event_id, "im", "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return Pending(STREAM, f"{event_id}-0", entry)


def run(event_id: str) -> Run:
    return Run(item(event_id), f"token-{event_id}", 1, {})


def until(condition: Callable[[], Any], within: float = 5.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.002)


class Reader:
    """Streams in memory. `failures` are raised by the next reads."""

    def __init__(self) -> None:
        self.streams: tuple[str, ...] = ()
        self.new: deque[list[Pending]] = deque()
        self.lost: list[Pending] = []
        self.abandoned: list[Pending] = []
        self.retries: list[Pending] = []
        self.failures: deque[Exception] = deque()
        self.calls: list[tuple[str, Any]] = []

    def follow(self, streams: Sequence[str]) -> None:
        self.streams = tuple(streams)

    def forget_groups(self) -> None:
        self.calls.append(("forget_groups", None))

    def read(self, room: int, block: float) -> list[Pending]:
        if self.failures:
            raise self.failures.popleft()
        self.calls.append(("read", room))
        if not self.new:
            time.sleep(0.005)
            return []
        return self.new.popleft()

    def own_pending(self) -> list[Pending]:
        return self.lost

    def take_over(self, room: int) -> list[Pending]:
        taken, self.abandoned = self.abandoned, []
        return taken

    def due(self, room: int) -> list[Pending]:
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

    def called(self, name: str) -> list[Any]:
        return [argument for called, argument in list(self.calls) if called == name]


class Guard:
    """Grants every claim that `answers` does not answer otherwise."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.claimed: list[str] = []
        self.settlements: list[Settlement] = []
        self.failures: deque[Exception] = deque()
        self.away = False
        self.taken: set[str] = set()
        """Tokens that another worker has taken over."""

    def claim(self, pending: Sequence[Pending]) -> list[Any]:
        self.claimed += [each.entry.event_id for each in pending]
        return [self.answers.get(each.entry.event_id, run(each.entry.event_id)) for each in pending]

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        if self.failures:
            raise self.failures.popleft()
        if self.away:
            raise RedisConnectionError("gone")
        self.settlements += settlements
        return [each.run.token not in self.taken for each in settlements]

    def renew(self, runs: Sequence[Run]) -> list[bool]:
        return [each.token not in self.taken for each in runs]

    def settled(self) -> dict[str, Settlement]:
        return {each.run.pending.entry.event_id: each for each in list(self.settlements)}


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
def intake(reader: Reader, guard: Guard, calls: list[str]) -> Iterator[Intake]:
    intake = Intake(
        reader,  # type: ignore[arg-type]
        guard,  # type: ignore[arg-type]
        lambda: [STREAM],
        0.15,
        lambda: calls.append("wake"),
        IntakeSpans(None, Resource.create(), "workers"),
        lambda: calls.append("died"),
    )
    intake.slots = 4
    intake.start()
    yield intake
    intake.stop()
    intake.close()


def ready(intake: Intake) -> list[str]:
    return [each.pending.entry.event_id for each in list(intake.ready)]


def test_what_is_read_is_claimed_and_the_pool_is_woken(intake, reader, calls):
    reader.new.append([item("ev1"), item("ev2")])
    until(lambda: ready(intake) == ["ev1", "ev2"])
    assert calls == ["wake"]
    assert intake.held == 2


def test_what_has_ended_is_settled_and_held_no_more(intake, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: intake.ready)
    intake.end(intake.ready.popleft(), DONE)
    until(lambda: intake.held == 0)
    assert guard.settlements == [Settlement(run("ev1"), DONE)]
    assert intake.settled == 1


def test_a_worker_that_is_full_reads_no_more(intake, reader):
    reader.new.append([item(f"ev{number}") for number in range(4)])
    until(lambda: intake.held == 4)
    reads = len(reader.called("read"))
    reader.new.append([item("more")])
    intake.end(intake.ready.popleft(), DONE)
    until(lambda: intake.held == 3)
    assert len(reader.called("read")) == reads
    intake.end(intake.ready.popleft(), DONE)
    until(lambda: "more" in ready(intake))
    assert reader.called("read")[reads] == 2


def test_duplicates_are_acknowledged_and_busy_ones_left_for_later(intake, reader, guard):
    guard.answers = {"old": Duplicate(item("old")), "busy": Busy(item("busy"), 0.7)}
    reader.new.append([item("old"), item("busy"), item("ev1")])
    until(lambda: reader.called("postpone"))
    assert reader.called("acknowledge") == [["old"]]
    assert reader.called("postpone") == [("busy", 0.7)]
    assert ready(intake) == ["ev1"]
    assert intake.duplicates == 1


def test_what_is_held_is_renewed_unless_another_worker_took_it(intake, reader, guard):
    reader.new.append([item("ours"), item("lost")])
    until(lambda: intake.held == 2)
    guard.taken = {"token-lost"}
    reader.calls.clear()
    until(lambda: len(reader.called("renew")) >= 3)
    assert reader.called("renew")[-1] == ["ours"]


def test_events_of_dead_workers_and_due_retries_are_claimed_too(intake, reader):
    reader.abandoned = [item("abandoned")]
    reader.retries = [item("retry")]
    until(lambda: sorted(ready(intake)) == ["abandoned", "retry"])


def test_a_worker_that_is_full_takes_nothing_over(intake, reader):
    reader.new.append([item(f"ev{number}") for number in range(4)])
    until(lambda: intake.held == 4)
    reader.abandoned = [item("abandoned")]
    reader.calls.clear()
    until(lambda: len(reader.called("renew")) >= 2)
    assert intake.held == 4


def test_a_settlement_that_redis_did_not_take_is_sent_until_it_does(intake, reader, guard):
    guard.failures.extend([RedisConnectionError("gone"), RedisConnectionError("gone")])
    reader.new.append([item("ev1")])
    until(lambda: intake.ready)
    intake.end(intake.ready.popleft(), DONE)
    until(lambda: intake.held == 0)
    assert [each.outcome for each in guard.settlements] == [DONE]


def test_what_a_lost_reply_held_is_found_and_nothing_is_claimed_twice(intake, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: intake.held == 1)
    reader.lost = [item("ev1"), item("lost")]
    reader.failures.append(RedisConnectionError("gone"))
    until(lambda: intake.held == 2)
    assert sorted(guard.claimed) == ["ev1", "lost"]


@pytest.mark.parametrize(
    "refusal", ["NOGROUP No such key", "UNBLOCKED the stream key no longer exists"]
)
def test_groups_are_made_anew_when_redis_has_lost_them(intake, reader, refusal):
    reader.failures.append(ResponseError(refusal))
    until(lambda: reader.called("forget_groups"))
    reader.new.append([item("ev1")])
    until(lambda: ready(intake) == ["ev1"])


def test_a_mistake_of_ours_ends_the_worker_instead_of_half_of_it(intake, reader, calls):
    reader.failures.append(ZeroDivisionError())
    until(lambda: "died" in calls)


def test_who_stops_gives_back_what_has_not_begun_before_anything_else(intake, reader, guard):
    reader.new.append([item("begun"), item("waiting")])
    until(lambda: intake.held == 2)
    begun = intake.ready.popleft()
    intake.stop()
    until(lambda: "waiting" in guard.settled())
    back = guard.settled()["waiting"]
    assert (back.returned, back.outcome.retry_after) == (True, 0.0)
    assert intake.held == 1
    intake.end(begun, DONE)
    until(lambda: intake.held == 0)
    reader.new.append([item("new")])
    intake.close()
    assert "new" not in guard.claimed
    assert reader.called("leave")


def test_what_came_back_to_a_worker_that_stops_is_given_back_as_not_begun(intake, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: intake.ready)
    taken = intake.ready.popleft()
    intake.stop()
    intake.put_back([taken])
    intake.close()
    assert guard.settled()["ev1"].returned


def test_what_is_cut_off_in_the_middle_is_for_retry_at_once(intake, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: intake.ready)
    intake.ready.popleft()
    intake.stop()
    intake.close()
    settlement = guard.settled()["ev1"]
    assert settlement.outcome.retry_after == 0.0
    assert not settlement.returned
    assert "stopped in the middle" in settlement.outcome.error


def test_a_worker_ends_although_redis_is_away(intake, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: intake.ready)
    guard.away = True
    intake.end(intake.ready.popleft(), DONE)
    intake.stop()
    started = time.monotonic()
    intake.close()
    assert time.monotonic() - started < 4
    assert guard.settlements == []


def test_a_stopping_worker_asks_an_absent_redis_with_pauses(intake, reader, guard):
    reader.new.append([item("ev1")])
    until(lambda: intake.ready)
    last = intake.ready.popleft()
    intake.stop()
    guard.failures.extend(RedisConnectionError("gone") for _ in range(3))
    started = time.monotonic()
    intake.end(last, DONE)
    until(lambda: guard.settlements)
    assert time.monotonic() - started >= 3 * DUE_PERIOD
