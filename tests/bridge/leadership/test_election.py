"""The decisions of one candidate, and of two against one store under every bad luck there is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flybridge.bridge.config.lease_timing import Timing, contradictions
from flybridge.bridge.leadership.election import Acquired, Answer, Election, Lost

TIMING = Timing()


def granted(term: int) -> Answer:
    return Answer(term, "me", 15.0)


def taken() -> Answer:
    return Answer(0, "another", 9.0)


class TestTiming:
    def test_the_defaults_go_together(self) -> None:
        assert contradictions(15.0, 10.0, 2.0) == []

    @pytest.mark.parametrize(
        ("durations", "named"),
        [
            ((10.0, 10.0, 2.0), ["LEASE_DURATION", "RENEW_DEADLINE"]),
            ((15.0, 2.4, 2.0), ["RENEW_DEADLINE", "RETRY_PERIOD"]),
            ((math.nan, 10.0, 2.0), ["LEASE_DURATION"]),
            ((15.0, 10.0, 0.0), ["RETRY_PERIOD"]),
            ((math.inf, 10.0, 2.0), ["LEASE_DURATION"]),
        ],
    )
    def test_a_contradiction_is_one_sentence_that_names_the_variables(
        self, durations: tuple[float, float, float], named: list[str]
    ) -> None:
        (sentence,) = contradictions(*durations)
        assert all(f"FLYBRIDGE_{name}" in sentence for name in named)

    def test_two_contradictions_are_two_sentences(self) -> None:
        assert len(contradictions(5.0, 5.0, 5.0)) == 2

    def test_impossible_timing_cannot_be_made(self) -> None:
        with pytest.raises(ValueError, match="FLYBRIDGE_LEASE_DURATION"):
            Timing(1.0, 2.0, 0.1)


class TestElection:
    def test_a_grant_makes_a_leader_until_the_deadline_reckoned_from_before_the_call(self) -> None:
        election = Election(TIMING)
        assert election.answered(granted(7), sent=100.0, now=103.0) == Acquired(7)
        assert election.leads(109.9)
        assert not election.leads(110.0)
        assert election.remaining(103.0) == pytest.approx(7.0)

    def test_a_renewal_moves_the_deadline_and_changes_nothing_else(self) -> None:
        election = Election(TIMING)
        election.answered(granted(7), 100.0, 100.0)
        assert election.answered(granted(7), 105.0, 106.0) is None
        assert election.leads(114.9)

    def test_without_a_renewal_the_leader_steps_down_by_its_own_clock(self) -> None:
        election = Election(TIMING)
        election.answered(granted(7), 100.0, 100.0)
        assert election.expired(109.0) is None
        assert election.expired(110.0) == Lost(7, "deadline", "me")
        assert not election.leads(110.0)

    def test_a_renewal_that_comes_back_after_the_deadline_is_too_late(self) -> None:
        election = Election(TIMING)
        election.answered(granted(7), 100.0, 100.0)
        assert election.answered(granted(7), sent=105.0, now=115.0) == Lost(7, "deadline", "me")

    def test_a_grant_that_took_longer_than_the_deadline_makes_no_leader(self) -> None:
        election = Election(TIMING)
        assert election.answered(granted(7), sent=100.0, now=110.0) is None
        assert not election.leads(110.0)

    def test_an_answer_that_names_another_ends_the_leadership(self) -> None:
        election = Election(TIMING)
        election.answered(granted(7), 100.0, 100.0)
        assert election.answered(taken(), 101.0, 101.0) == Lost(7, "taken", "another")

    def test_a_new_term_ends_the_leadership_under_the_old_one(self) -> None:
        election = Election(TIMING)
        election.answered(granted(7), 100.0, 100.0)
        assert election.answered(granted(9), 101.0, 101.0) == Lost(7, "renumbered", "me")
        assert election.answered(granted(9), 102.0, 102.0) == Acquired(9)

    def test_retries_are_spread_by_a_fifth_and_a_standby_asks_twice_as_often(self) -> None:
        election = Election(TIMING)
        assert [election.delay(chance) for chance in (0.0, 0.5, 1.0)] == pytest.approx(
            [0.8, 1.0, 1.2]
        )
        election.answered(granted(7), 100.0, 100.0)
        assert [election.delay(chance) for chance in (0.0, 0.5, 1.0)] == pytest.approx(
            [1.6, 2.0, 2.4]
        )

    def test_a_standby_asks_as_soon_as_the_lease_of_another_has_run_out(self) -> None:
        assert Election(TIMING).delay(0.5, left=0.2) == pytest.approx(0.25)


@dataclass
class Store:
    """`lease.lua` and the fence of `publish.lua`, on a clock that the test moves."""

    holder: str = ""
    term: int = 0
    renewed_at: float = -math.inf
    entries: list[int] = field(default_factory=list)

    def hold(self, identity: str, now: float) -> Answer:
        left = self.renewed_at + TIMING.lease_duration - now
        if left > TIMING.lease_duration:
            self.renewed_at, left = now, TIMING.lease_duration
        alive = self.holder != "" and left > 0
        if alive and self.holder != identity:
            return Answer(0, self.holder, left)
        if not alive:
            self.term = max(self.term + 1, int(now * 1000))
        self.holder, self.renewed_at = identity, now
        return Answer(self.term, identity, TIMING.lease_duration)

    def accepts(self, term: int) -> bool:
        return term == self.term


@dataclass
class Candidate:
    """One process: its clock may run fast or slow, and it may be paused between any two steps."""

    name: str
    rate: float
    now: float = 0.0
    election: Election = field(default_factory=lambda: Election(TIMING))
    sent: float | None = None
    reply: Answer | None = None
    publishing: int = 0
    """The term of a publish that was decided on and is not yet in Redis."""


class TwoCandidates(RuleBasedStateMachine):
    """Whatever is paused, lost or late: one accepted leader at most, and terms that only grow."""

    @initialize(rates=st.tuples(*[st.floats(0.85, 1.2)] * 2), start=st.integers(1, 10**6))
    def begin(self, rates: tuple[float, float], start: int) -> None:
        self.time = float(start)
        self.store = Store()
        self.behind = 0.0
        self.candidates = [Candidate("a", rates[0]), Candidate("b", rates[1], now=1e5)]
        self.lossless = True

    @rule(seconds=st.floats(0.01, 12.0))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds
        for candidate in self.candidates:
            candidate.now += seconds * candidate.rate

    @rule(index=st.integers(0, 1))
    def send(self, index: int) -> None:
        candidate = self.candidates[index]
        if candidate.sent is None:
            candidate.sent = candidate.now

    @rule(index=st.integers(0, 1), lost=st.booleans())
    def redis_executes(self, index: int, lost: bool) -> None:
        candidate = self.candidates[index]
        if candidate.sent is None or candidate.reply is not None:
            return
        answer = self.store.hold(candidate.name, self.time - self.behind)
        if lost:
            candidate.sent = None
        else:
            candidate.reply = answer

    @rule(index=st.integers(0, 1))
    def reply_arrives(self, index: int) -> None:
        candidate = self.candidates[index]
        if candidate.reply is None or candidate.sent is None:
            return
        candidate.election.answered(candidate.reply, candidate.sent, candidate.now)
        candidate.sent = candidate.reply = None

    @rule(index=st.integers(0, 1))
    def asks_and_is_answered_at_once(self, index: int) -> None:
        self.send(index)
        self.redis_executes(index, lost=False)
        self.reply_arrives(index)

    @rule(index=st.integers(0, 1))
    def looks_at_its_clock(self, index: int) -> None:
        self.candidates[index].election.expired(self.candidates[index].now)

    @rule(index=st.integers(0, 1))
    def decides_to_publish(self, index: int) -> None:
        candidate = self.candidates[index]
        if candidate.election.leads(candidate.now):
            candidate.publishing = candidate.election.term

    @rule(index=st.integers(0, 1))
    def publish_arrives(self, index: int) -> None:
        candidate = self.candidates[index]
        if candidate.publishing and self.store.accepts(candidate.publishing):
            self.store.entries.append(candidate.publishing)
        candidate.publishing = 0

    @rule(seconds=st.floats(0.01, 100.0))
    @precondition(lambda self: self.lossless)
    def the_clock_of_redis_goes_back(self, seconds: float) -> None:
        self.behind += seconds

    @rule()
    def redis_loses_everything(self) -> None:
        self.store = Store(entries=self.store.entries)
        self.behind = 0.0  # with nothing left but a clock that went back, terms could not grow
        self.time += 0.01  # or the same millisecond could give the same term twice
        self.lossless = False

    @precondition(lambda self: hasattr(self, "candidates"))
    @invariant()
    def at_most_one_leader_is_accepted(self) -> None:
        leaders = [c for c in self.candidates if c.election.leads(c.now)]
        assert len([c for c in leaders if self.store.accepts(c.election.term)]) <= 1
        if self.lossless:
            assert len(leaders) <= 1

    @precondition(lambda self: hasattr(self, "candidates"))
    @invariant()
    def terms_only_grow(self) -> None:
        assert self.store.entries == sorted(self.store.entries)


TwoCandidates.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTwoCandidates = TwoCandidates.TestCase
