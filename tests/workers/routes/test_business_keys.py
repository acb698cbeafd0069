"""Business keys: a handler succeeds once for a key, under however many event ids it comes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from redis import Redis
from redis.exceptions import ConnectionError, ResponseError
from structlog.testing import capture_logs

from flybridge.bridge.store.lifetimes import mark_ttl
from flybridge.bridge.store.scripts import run_all
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.handlers.registry import Registry
from flybridge.workers.claim.claims import Claim, Duplicate, Pending, Queued, Run, Settlement
from flybridge.workers.claim.guard import Guard
from flybridge.workers.claim.outcomes import Failure, Outcome
from flybridge.workers.operate.replay import Replayer
from flybridge.workers.operate.stored import scan
from flybridge.workers.routes.business_keys import BusinessKeys
from flybridge.workers.routes.ordering import line_member

IM = "im.message.receive_v1"
BY_MESSAGE = "body.message.message_id"

DONE = Outcome(finished=("H",))
RETRY = Outcome(retry_after=0.0, error="E: again")
DEAD = Outcome(failed=(Failure("H", "rejected", "no"),))


def registry(**more: str | None) -> Registry:
    """H has a business key; `more`: further handlers and theirs."""
    made = Registry()
    for name, dedup_by in {"H": BY_MESSAGE, **more}.items():
        made.register(lambda event, context: None, IM, name=name, dedup_by=dedup_by)
    return made


class World:
    """A stream of one group, and the guards of two workers."""

    def __init__(self, redis: Redis, keys: Keys, **more: str | None) -> None:
        self.redis, self.keys, self.registry = redis, keys, registry(**more)
        business = BusinessKeys(self.registry, keys, "workers")
        self.a, self.b = (
            Guard(redis, keys, "workers", 30, name, business=business) for name in "ab"
        )
        redis.xgroup_create(keys.stream(IM), "workers", id="0", mkstream=True)

    def push(self, event_id: str, message_id: object = "om_1") -> Pending:
        envelope = json.dumps({"event": {"message": {"message_id": message_id}}}).encode()
        entry = Entry(event_id, IM, "cli", "tk", "2.0", 1, 2, 3, "", "", envelope)
        fields, stream = entry.fields(), self.keys.stream(IM)
        entry_id = self.redis.xadd(stream, dict(zip(fields[::2], fields[1::2], strict=True)))
        self.redis.xreadgroup("workers", "c", {stream: ">"})
        return Pending(stream, entry_id.decode(), entry)

    def replay(self, event_id: str) -> Pending:
        """The dead letter of an event, brought back and delivered."""
        self.redis.sadd(self.keys.types, IM)
        letters = scan(self.redis, self.keys.dead("workers"), "-", "+")
        chosen = [each for each in letters if each.event_id == event_id]
        (answer,) = Replayer(self.redis, self.keys, "workers", "me").replay(chosen, self.registry)
        assert answer.moved
        stream: Any = self.keys.replay("workers", IM)
        with suppress(ResponseError):  # it is there
            self.redis.xgroup_create(stream, "workers", id="0")
        ((_, ((entry_id, fields),)),) = self.redis.xreadgroup("workers", "c", {stream: ">"})
        return Pending(stream, entry_id.decode(), Entry.from_fields(fields))

    def due(self, item: Pending) -> float | None:
        return self.redis.zscore(self.keys.retries_of("workers", item.stream), item.entry_id)


@pytest.fixture
def world(redis: Redis, keys: Keys) -> World:
    return World(redis, keys)


def claim(guard: Guard, item: Pending) -> Claim:
    return guard.claim([item])[0]


def run(guard: Guard, item: Pending) -> Run:
    answer = claim(guard, item)
    assert isinstance(answer, Run)
    return answer


def end(guard: Guard, run: Run, outcome: Outcome = DONE) -> None:
    assert guard.settle([Settlement(run, outcome)]) == [True]


def test_what_was_done_under_another_event_id_is_skipped(world):
    end(world.a, run(world.a, world.push("e1")))
    second = run(world.b, world.push("e2"))
    assert (second.marks, second.skipped) == ({"H": ""}, 1)
    end(world.b, second, Outcome())
    assert isinstance(claim(world.a, world.push("e2")), Duplicate)
    assert run(world.a, world.push("e3")).marks == {"H": ""}


def test_another_key_or_none_is_not_skipped(world):
    end(world.a, run(world.a, world.push("e1")))
    for number, message_id in enumerate(["om_2", 1, "", None, ["om_1"], True]):
        assert run(world.b, world.push(f"other{number}", message_id)).marks == {}


def test_a_second_event_waits_while_the_first_is_in_work_and_that_is_no_attempt(world):
    first, item = run(world.a, world.push("e1")), world.push("e2")
    for _ in range(3):
        assert claim(world.b, item) == Queued(item)
    assert world.due(item) is not None
    assert not world.redis.exists(world.keys.state("workers", "e2"))
    end(world.a, first)
    assert run(world.b, item).attempt == 1


def test_it_waits_for_the_retry_of_the_first_too(world):
    again, item = world.push("e1"), world.push("e2")
    end(world.a, run(world.a, again), RETRY)
    assert isinstance(claim(world.b, item), Queued)
    end(world.a, run(world.a, again))
    assert run(world.b, item).marks == {"H": ""}


def test_it_is_handled_itself_when_the_first_became_a_dead_letter(world):
    end(world.a, run(world.a, world.push("e1")), DEAD)
    second = run(world.b, world.push("e2"))
    assert second.marks == {}
    end(world.b, second)
    assert run(world.a, world.push("e3")).marks == {"H": ""}


def test_it_is_handled_itself_when_nobody_knows_of_the_first_any_more(world):
    run(world.a, world.push("e1"))
    world.redis.delete(world.keys.state("workers", "e1"))
    assert run(world.b, world.push("e2")).marks == {}


def test_it_waits_no_longer_when_the_first_was_deleted_while_it_waited_for_its_retry(world):
    first, item = world.push("e1"), world.push("e2")
    end(world.a, run(world.a, first), RETRY)
    assert isinstance(claim(world.b, item), Queued)
    world.redis.xdel(first.stream, first.entry_id)
    assert run(world.b, item).marks == {}
    assert isinstance(claim(world.a, first), Queued)


def test_of_a_deleted_one_in_work_the_end_is_awaited_or_that_its_worker_is_gone(world):
    first, item = world.push("e1"), world.push("e2")
    running = run(world.a, first)
    world.redis.xdel(first.stream, first.entry_id)
    assert isinstance(claim(world.b, item), Queued)
    world.redis.delete("lock:" + world.keys.lock_name("workers", "e1"))
    assert world.a.renew([running]) == [True]
    assert isinstance(claim(world.b, item), Queued)
    world.redis.delete("lock:" + world.keys.lock_name("workers", "e1"))
    assert run(world.b, item).marks == {}


def test_it_waits_no_longer_when_the_first_was_acknowledged_by_hand(world):
    first, item = world.push("e1"), world.push("e2")
    end(world.a, run(world.a, first), RETRY)
    assert isinstance(claim(world.b, item), Queued)
    world.redis.xack(first.stream, "workers", first.entry_id)
    assert run(world.b, item).marks == {}


def test_an_event_whose_record_was_edited_by_hand_holds_no_key(world):
    first, item = world.push("e1"), world.push("e2")
    end(world.a, run(world.a, first), RETRY)
    world.redis.hset(world.keys.state("workers", "e1"), "entry", "nonsense")
    assert run(world.b, item).marks == {}


def test_a_replayed_event_waits_behind_the_one_it_kept_waiting(world):
    """In one line: neither waits for the other."""
    end(world.a, run(world.a, world.push("e1")), DEAD)
    head, item = in_line(world, world.push("e0", "om_0")), in_line(world, world.push("e2"))
    end(world.a, run(world.a, head), RETRY)
    assert isinstance(claim(world.b, item), Queued)
    replayed = in_line(world, world.replay("e1"))
    end(world.a, run(world.a, head))
    assert isinstance(claim(world.a, replayed), Queued)
    end(world.b, run(world.b, item))
    assert run(world.a, replayed).marks == {"H": ""}


def test_who_waits_behind_others_in_its_line_keeps_nobody_waiting(world):
    """They might wait for the one that asks, in a line of its own."""
    first, item = in_line(world, world.push("e1"), "x"), in_line(world, world.push("e2"), "y")
    end(world.a, run(world.a, first), RETRY)
    assert isinstance(claim(world.b, item), Queued)
    world.redis.zadd(first.line, {line_member(first.stream, "0-1"): 0})
    assert run(world.b, item).marks == {}


def in_line(world: World, item: Pending, name: str = "x") -> Pending:
    return replace(item, line=f"{world.keys.order('workers')}:{IM}:{name}")


def test_a_worker_s_death_and_a_long_absence_of_all_end_no_wait(world):
    killed, item = world.push("e1"), world.push("e2")
    run(world.a, killed)
    world.redis.delete("lock:" + world.keys.lock_name("workers", "e1"))
    assert isinstance(claim(world.b, item), Queued)
    retrying, other = world.push("e3", "om_2"), world.push("e4", "om_2")
    end(world.a, run(world.a, retrying), RETRY)
    world.redis.hset(world.keys.state("workers", "e3"), "due", 1)
    assert isinstance(claim(world.b, other), Queued)


def test_one_whose_whole_stream_was_deleted_holds_no_key(world):
    first, item = world.push("e1"), world.push("e2")
    end(world.a, run(world.a, first), RETRY)
    world.redis.delete(first.stream)
    assert run(world.b, item).marks == {}


def test_of_a_stream_that_is_none_nothing_is_concluded(world):
    first, item = world.push("e1"), world.push("e2")
    end(world.a, run(world.a, first), RETRY)
    world.redis.delete(first.stream)
    world.redis.set(first.stream, "by hand")
    assert isinstance(claim(world.b, item), Queued)


@pytest.mark.parametrize(("of_first", "marks"), [("", {"H": ""}), ("attempts\nE", {})])
def test_what_counts_is_the_handler_and_not_its_event(redis, keys, of_first, marks):
    world = World(redis, keys, Other=None)
    failed = (Failure("H", "attempts", "E"),) if of_first else ()
    finished = () if of_first else ("H",)
    still = Outcome(finished=finished, failed=failed, retry_after=60.0)
    end(world.a, run(world.a, world.push("e1")), still)
    assert run(world.b, world.push("e2")).marks == marks


def test_handlers_with_different_keys_are_told_apart(redis, keys):
    world = World(redis, keys, ByEvent=BY_MESSAGE)
    first = run(world.a, world.push("e1"))
    dead = Outcome(finished=("H",), failed=(Failure("ByEvent", "attempts", "E"),))
    end(world.a, first, dead)
    second = run(world.b, world.push("e2"))
    assert (second.marks, second.skipped) == ({"H": ""}, 1)


def test_a_handler_that_was_taken_away_meanwhile_has_not_succeeded(redis, keys):
    world = World(redis, keys, Other=None)
    first = world.push("e1")
    end(world.a, run(world.a, first), RETRY)
    end(world.a, run(world.a, first), Outcome(finished=("Other",)))
    assert run(world.b, world.push("e2")).marks == {}


def test_a_handler_that_succeeded_before_the_others_has(redis, keys):
    world = World(redis, keys, Other=None)
    first = world.push("e1")
    end(world.a, run(world.a, first), Outcome(finished=("H",), retry_after=0.0, error="Other: E"))
    end(world.a, run(world.a, first), Outcome(finished=("Other",)))
    assert run(world.b, world.push("e2")).marks == {"H": ""}


def test_events_of_different_types_do_not_share_a_key(keys):
    made = Registry()
    recalled = "im.message.recalled_v1"
    made.register(lambda event, context: None, IM, recalled, name="H", dedup_by="body.message_id")
    business = BusinessKeys(made, keys, "workers")
    envelope = b'{"event": {"message_id": "om_1"}}'
    found = [
        business.of(Entry("e", event_type, "", "", "2.0", 0, 0, 0, "", "", envelope))
        for event_type in (IM, recalled, IM)
    ]
    assert found[0] == found[2] != found[1]


def test_a_replayed_dead_letter_is_skipped_where_another_event_has_succeeded_since(world):
    end(world.a, run(world.a, world.push("e1")), DEAD)
    end(world.b, run(world.b, world.push("e2")))
    letters = scan(world.redis, world.keys.dead("workers"), "-", "+")
    (answer,) = Replayer(world.redis, world.keys, "workers", "me").replay(letters, world.registry)
    assert answer.moved
    assert run(world.a, world.push("e1")).marks == {"H": ""}


def test_a_skipped_handler_counts_as_finished_in_a_dead_letter(redis, keys):
    world = World(redis, keys, Other=None)
    end(world.a, run(world.a, world.push("e1")), Outcome(finished=("H", "Other")))
    end(world.b, run(world.b, world.push("e2")),
        Outcome(failed=(Failure("Other", "attempts", "E"),)))  # fmt: skip
    (letter,) = scan(redis, keys.dead("workers"), "-", "+")
    assert letter.text("finished") == "H"


def test_a_claim_whose_answer_was_lost_is_told_the_same_again(world, monkeypatch):
    item = world.push("e1")

    def claimed_but_cut_off(redis, calls):
        run_all(redis, calls)
        raise ConnectionError("cut off")

    monkeypatch.setattr("flybridge.workers.claim.guard.run_all", claimed_but_cut_off)
    with pytest.raises(ConnectionError):
        world.a.claim([item])
    monkeypatch.undo()
    again = run(world.a, item)
    assert (again.attempt, again.marks) == (1, {})


def test_of_many_claims_at_once_one_runs(world):
    items = [world.push(f"e{number}") for number in range(20)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: claim((world.a, world.b)[n % 2], items[n]), range(20)))
    assert sum(isinstance(each, Run) for each in answers) == 1
    assert sum(isinstance(each, Queued) for each in answers) == 19


def test_in_one_pipeline_too(world):
    answers = world.a.claim([world.push("e1"), world.push("e2")])
    assert [type(each) for each in answers] == [Run, Queued]


@pytest.mark.parametrize("outcome", [DONE, DEAD])
def test_a_key_is_kept_as_long_as_the_mark_of_its_event(world, redis, outcome):
    end(world.a, run(world.a, world.push("e1")), outcome)
    (name,) = redis.scan_iter("*:business:*")
    assert mark_ttl(86_400) - 5 < redis.ttl(name) <= mark_ttl(86_400)


def test_a_key_outlives_the_wait_of_its_event_for_a_retry(world, redis):
    week = 7 * 86_400
    end(world.a, run(world.a, world.push("e1")), Outcome(retry_after=week, error="E: later"))
    (name,) = redis.scan_iter("*:business:*")
    state = redis.ttl(world.keys.state("workers", "e1"))
    assert redis.ttl(name) >= state > week


def test_a_key_that_another_event_has_taken_is_left_to_it(world, redis):
    first, item = world.push("e1"), world.push("e2")
    end(world.a, run(world.a, first), RETRY)
    world.redis.xack(first.stream, "workers", first.entry_id)
    second = run(world.b, item)
    world.redis.hset(world.keys.state("workers", "e1"), mapping={"state": "running", "token": "a"})
    late = Run(first, "a", 1, {})
    end(world.a, late)
    (name,) = redis.scan_iter("*:business:*")
    assert redis.ttl(name) > mark_ttl(86_400)
    end(world.b, second)


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"[]",
        b"{",
        b'{"event": 1}',
        b"[" * 5000,
        b"\xff",
        b'{"event": {"message": {"message_id": "\xff"}}}',
    ],
)
def test_an_envelope_without_a_key_has_none(keys, envelope):
    business = BusinessKeys(registry(), keys, "workers")
    assert business.of(Entry("e", IM, "", "", "2.0", 0, 0, 0, "", "", envelope)) == ()


@settings(max_examples=100, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["claim", "claim", "done", "retry", "dead", "delete"]),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_whatever_happens_a_key_is_handled_once_at_a_time_and_succeeds_once(
    redis: Redis, keys: Keys, steps: list[tuple[str, int]]
) -> None:
    redis.flushall()
    world = World(redis, keys)
    items = [world.push(f"e{number}") for number in range(4)]
    running: dict[int, Run] = {}
    ended: set[int] = set()
    successes = 0
    for action, number in [*steps, *(("claim", n) for n in range(4)), ("done", 0), ("done", 1),
                           ("done", 2), ("done", 3)]:  # fmt: skip
        if action == "claim" and number not in running and number not in ended:
            answer = claim(world.a, items[number])
            if isinstance(answer, Run):
                running[number] = answer
        elif action == "delete":
            world.redis.xdel(items[number].stream, items[number].entry_id)
        elif action != "claim" and number in running:
            mine = running.pop(number)
            skipped = "H" in mine.marks
            outcome = {"retry": RETRY, "dead": DEAD}.get(action, DONE)
            successes += action == "done" and not skipped
            end(world.a, mine, Outcome() if skipped else outcome)
            if skipped or action != "retry":
                ended.add(number)
        assert sum("H" not in each.marks for each in running.values()) <= 1
    assert successes <= 1


def test_an_event_without_its_key_is_told_of_once_a_type(world):
    with capture_logs() as logs:
        for number, message_id in enumerate((None, {"a": 1}, "om_1")):
            run(world.a, world.push(f"e{number}", message_id))
    (line,) = [line for line in logs if line["event"] == "key.missing"]
    assert (line["option"], line["path"], line["event_type"]) == ("dedup_by", BY_MESSAGE, IM)


@settings(max_examples=80, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    events=st.lists(
        st.tuples(st.sampled_from("xy"), st.sampled_from("mn")), min_size=2, max_size=6
    ),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["claim", "claim", "retry", "dead", "replay"]), st.integers(0, 5)
        ),
        max_size=40,
    ),
)
@example(events=["xm", "xn", "xm"], steps=[("dead", 0), ("replay", 0)])
@example(events=["xm", "xm"], steps=[("retry", 1), ("lost", 0)])
def test_whatever_happens_in_lines_nobody_waits_for_ever(
    redis: Redis, keys: Keys, events: list[str], steps: list[tuple[str, int]]
) -> None:
    """An event is given as its line and its key, which succeeds once, one event at a time."""
    redis.flushall()
    world = World(redis, keys)
    items = {
        number: in_line(world, world.push(f"e{number}", message), line)
        for number, (line, message) in enumerate(events)
    }
    running: dict[int, Run] = {}
    died: set[int] = set()
    succeeded: list[str] = []

    def ended(number: int, outcome: Outcome) -> None:
        mine = running.pop(number)
        if "H" in mine.marks:
            outcome = Outcome()
        elif outcome is DONE:
            succeeded.append(events[number][1])
        end(world.a, mine, outcome)
        if outcome is DEAD:
            died.add(number)
        if outcome is not RETRY:
            del items[number]

    def claimed(number: int) -> None:
        if number in items and number not in running:
            answer = claim(world.a, items[number])
            if isinstance(answer, Run):
                running[number] = answer
        busy = [events[each][1] for each, run in running.items() if "H" not in run.marks]
        assert len(busy) == len(set(busy))

    for action, number in steps:
        claimed(number)
        if action == "replay" and number in died:
            died.discard(number)
            items[number] = in_line(world, world.replay(f"e{number}"), events[number][0])
        elif action == "lost":
            redis.delete(*redis.keys(f"{keys.order('workers')}:*") or ["none"])
        elif action in ("retry", "dead") and number in running:
            ended(number, RETRY if action == "retry" else DEAD)
    for _ in range(2 * len(events)):
        for number in list(items):
            claimed(number)
            if number in running:
                ended(number, DONE)
    assert not items, "they wait for each other"
    assert len(succeeded) == len(set(succeeded))
