"""The guard: claims events, renews claims and settles attempts, each in bulk.

It makes an event's handlers run at one place at a time, and their success count once.

The lock is python-redis-lock's: same keys, same owner id. It ends with the attempt, so it does not
deduplicate; the state beside it does, kept after the event is done for as long as its entry may be
delivered again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from flybridge.bridge.store.lifetimes import UNSETTLED, mark_ttl
from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.spoilt_keys import SpoiltKeys
from flybridge.bridge.store.streams import Keys
from flybridge.bridge.telemetry.redaction import redact
from flybridge.handlers.registry import Registry
from flybridge.workers.claim import tries
from flybridge.workers.claim.bulk import Bulk
from flybridge.workers.claim.claims import Busy, Claim, Duplicate, Pending, Queued, Run, Settlement
from flybridge.workers.claim.outcomes import MAX_ERROR, UNHANDLED, Outcome
from flybridge.workers.claim.redis_clock import RedisClock
from flybridge.workers.claim.stalls import Stalls
from flybridge.workers.claim.tries import Try
from flybridge.workers.routes.business_keys import BusinessKey, BusinessKeys
from flybridge.workers.routes.ordering import advancing, line_member

NO_MARKS: Mapping[str, str] = {}

DEAD_WAIT = 60.0
"""Seconds until another attempt to give an event up whose dead letter could not be written."""

LETTERS = 5
"""Index of the first key of a settlement that only a dead letter uses."""

UNANSWERED = 10_000
"""Claims without an answer that are remembered; one that is forgotten stays busy for an event
lease."""


class Guard:
    """Claims, renews and settles for one worker.

    Args:
        redis: a client whose commands may be repeated; the scripts bear it.
        event_lease: seconds without renewal before another worker may take an event over.
        boot: names this worker process; new at every start, so that tokens never recur.
        retention: seconds an entry stays in its stream; done and dead marks outlive it.
        redact: takes secrets out of an error's text before it is kept.
        unhandled_limit: dead letters kept of a type that no worker of the group has a handler for.
        clock: tells how old an event is; None: one of its own.
        stalls: is told of business keys that events wait for; None: nobody.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        group: str,
        event_lease: float,
        boot: str,
        *,
        retention: float = 86_400.0,
        redact: Callable[[str], str] = redact,
        business: BusinessKeys | None = None,
        spoilt: SpoiltKeys | None = None,
        unhandled_limit: int = 1_000,
        clock: RedisClock | None = None,
        stalls: Stalls | None = None,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._lease_ms = int(event_lease * 1000)
        self._mark_ttl = mark_ttl(retention)
        self._redact = redact
        self._business = business or BusinessKeys(Registry(), keys, group)
        self._spoilt = spoilt or SpoiltKeys(redis)
        self._unhandled_limit = unhandled_limit
        self._stalls = stalls or Stalls(redis, keys, group)
        self._clock = clock or RedisClock(redis, keys, group)
        self._bulk = Bulk(redis, keys, group, self._mark_ttl)
        self.displaced = 0
        """Dead letters of unhandled types that made room for newer ones."""
        # Several threads claim. Both are used in one step of C, so no token is given out twice.
        self._unanswered: dict[tuple[str, str], str] = {}
        self._boot, self._numbers = boot, itertools.count(1)

    @property
    def dead_letters(self) -> str:
        """The stream where dead letters go."""
        return self._keys.dead(self._group)

    def claim(self, pending: Sequence[Pending]) -> list[Claim]:
        """Claim each entry for one attempt, in one pipeline.

        Raises:
            redis.RedisError: nothing is known to be claimed; ask again.
        """
        self._clock.know()
        tokens = [self._token_for(item) for item in pending]
        business = [self._business.of(item.entry) for item in pending]
        plain = [n for n, item in enumerate(pending) if not (item.line or business[n])]
        try:
            fresh = self._claim_fresh(pending, tokens, plain)
            others = [n for n in range(len(pending)) if n not in fresh]
            calls = [self._claim_call(pending[n], tokens[n], business[n]) for n in others]
            answers = dict(zip(others, run_all(self._redis, calls), strict=True))
        except (RedisError, OSError):
            self._remember(pending, tokens)
            raise
        return [
            self._claimed(item, token, answers[n]) if n in answers else self._fresh(item, token)
            for n, (item, token) in enumerate(zip(pending, tokens, strict=True))
        ]

    def _claim_fresh(
        self, pending: Sequence[Pending], tokens: Sequence[str], plain: Sequence[int]
    ) -> set[int]:
        """Claim those of the plain ones that nobody has met before."""
        events = [(pending[n].entry.event_id, tokens[n]) for n in plain]
        claimed = self._bulk.claim(events, self._lease_ms)
        return {n for n, done in zip(plain, claimed, strict=True) if done}

    def settle(self, settlements: Sequence[Settlement]) -> list[bool | None]:
        """Record how attempts ended.

        Returns:
            For each: True when it is recorded, False where the claim had been lost to another
            worker, None where a spoilt key kept it from being recorded: that event is tried again.

        Raises:
            redis.RedisError: settle the same again; what was recorded stays recorded.
        """
        recorded = self._settle_done(settlements)
        others = [n for n in range(len(settlements)) if n not in recorded]
        left = [settlements[n] for n in others]
        calls = [self._settle_call(each) for each in left]
        lines = dict.fromkeys(s.run.pending.line for s in settlements if s.run.pending.line)
        retries = self._keys.retries(self._group)
        calls += [advancing(line, retries, self._group) for line in lines]
        answers = run_all(self._redis, calls)[: len(left)]
        self._put_off(left, answers)
        self.displaced += sum(
            answer - 1 for answer in answers if isinstance(answer, int) and answer
        )
        told = {n: _recorded(answer) for n, answer in zip(others, answers, strict=True)}
        return [told.get(n, True) for n in range(len(settlements))]

    def _settle_done(self, settlements: Sequence[Settlement]) -> set[int]:
        """Record the successes among them."""
        done = [n for n, each in enumerate(settlements) if _is_plain(each)]
        recorded = self._bulk.settle([_place(settlements[n].run) for n in done])
        return {n for n, kept in zip(done, recorded, strict=True) if kept}

    def _put_off(self, settlements: Sequence[Settlement], answers: Sequence[Any]) -> None:
        """Log spoilt keys. What cannot become a dead letter now is tried again in a while."""
        again = []
        for settlement, answer in zip(settlements, answers, strict=True):
            if isinstance(answer, Exception):
                run, outcome = settlement.run, settlement.outcome
                types = ("hash", "string", "list", "stream", "zset", "stream", "zset")
                keys = dict(zip(self._settle_keys(settlement), types, strict=False))
                self._spoilt.tell(keys, answer, event_id=run.pending.entry.event_id)
                if outcome.verdict == "dead":
                    later = replace(outcome, retry_after=DEAD_WAIT)
                    again.append(self._settle_call(Settlement(run, later)))
            elif settlement.outcome.verdict == "dead":
                for key in self._settle_keys(settlement)[LETTERS:]:
                    self._spoilt.well(key)
        if again:
            run_all(self._redis, again)

    def renew(self, runs: Sequence[Run]) -> list[bool]:
        """Keep claims for another event lease; False where one was lost.

        Raises:
            redis.RedisError: ask again before the event lease ends.
        """
        script = load("renew")
        calls = [
            Call(
                script,
                self._state_and_lock(run.pending),
                (run.token, self._lease_ms, self._mark_ttl),
            )
            for run in runs
        ]
        return [answer == 1 for answer in run_all(self._redis, calls)]

    def _token_for(self, item: Pending) -> str:
        """A fresh token, or that of an earlier claim of this entry whose answer was lost.

        That claim may have succeeded: with its own token the answer is repeated, with another one
        the event would be busy for an event lease and then count as a crash.
        """
        if self._unanswered and (
            earlier := self._unanswered.pop((item.stream, item.entry_id), None)
        ):
            return earlier
        return f"{self._boot}:{next(self._numbers)}"

    def _remember(self, pending: Sequence[Pending], tokens: Sequence[str]) -> None:
        if len(self._unanswered) > UNANSWERED:
            self._unanswered.clear()
        for item, token in zip(pending, tokens, strict=True):
            self._unanswered[item.stream, item.entry_id] = token

    def _fresh(self, item: Pending, token: str) -> Run:
        born = self._clock.born(item.entry, item.entry_id)
        return Run(item, token, 1, NO_MARKS, fresh=True, born=born)

    def _claimed(self, item: Pending, token: str, answer: Any) -> Claim:
        if isinstance(answer, Exception):
            keys = self._claim_call(item, token, self._business.of(item.entry)).keys
            types = ("hash", "string", "hash", "zset", *(("zset",) if item.line else ()))
            expected = dict(
                zip(keys, (*types, *itertools.repeat("string", len(keys))), strict=False)
            )
            self._spoilt.tell(expected, answer, event_id=item.entry.event_id)
            return Busy(item, self._lease_ms / 1000)
        kind = answer[0]
        if kind == b"run":
            return self._run(item, token, *answer[1:])
        if kind == b"duplicate":
            return Duplicate(item)
        if kind == b"queued":
            self._stalls.met("key", (name.decode() for name in answer[1:]))
            return Queued(item)
        # For a lock without an expiry, which somebody made by hand, ask once in an event lease.
        left = answer[1] if answer[1] >= 0 else self._lease_ms
        return Busy(item, left / 1000)

    def _run(
        self,
        item: Pending,
        token: str,
        attempts: int,
        crashes: int,
        skipped: int,
        redis_ms: int,
        *fields: bytes,
    ) -> Run:
        here, born = time.monotonic(), self._clock.born(item.entry, item.entry_id)
        marks: dict[str, str] = {}
        tried: dict[str, Try] = {}
        for field, value in zip(fields[::2], fields[1::2], strict=True):
            name, text = field[2:].decode(errors="replace"), value.decode(errors="replace")
            if field.startswith(b"h:"):
                marks[name] = text
            elif (one := tries.read(text, redis_ms, crashes, here)) is not None:
                tried[name] = one
        tried = tries.ended(marks, tried)
        attempt = tries.attempt_of(tried, attempts, crashes, here)
        return Run(item, token, attempt, marks, crashes, skipped, born=born, tries=tried)

    def _claim_call(self, item: Pending, token: str, business: Sequence[BusinessKey]) -> Call:
        script = load("claim")
        keys = (*self._state_and_lock(item), self._keys.clock(self._group))
        args = (token, self._lease_ms, UNSETTLED)
        if not item.line and not business:
            return Call(script, keys, args)
        return Call(
            script,
            (
                *keys,
                self._keys.retries_of(self._group, item.stream),
                *((item.line,) if item.line else ()),
                *(key.name for key in business),
            ),
            (
                *args,
                line_member(item.stream, item.entry_id) if item.line else "",
                f"{item.stream}|{item.entry_id}",
                self._group,
                *(key.handler for key in business),
            ),
        )

    def _state_and_lock(self, item: Pending) -> tuple[str, str]:
        event_id = item.entry.event_id
        return (
            self._keys.state(self._group, event_id),
            "lock:" + self._keys.lock_name(self._group, event_id),
        )

    def _settle_call(self, settlement: Settlement) -> Call:
        return Call(load("settle"), self._settle_keys(settlement), self._settle_args(settlement))

    def _settle_keys(self, settlement: Settlement) -> tuple[str, ...]:
        pending = settlement.run.pending
        name = self._keys.lock_name(self._group, pending.entry.event_id)
        bounded = _is_unhandled(settlement.outcome)
        return (
            self._keys.state(self._group, pending.entry.event_id),
            "lock:" + name,
            "lock-signal:" + name,
            pending.stream,
            self._keys.retries_of(self._group, pending.stream),
            self._keys.dead(self._group),
            *((self._keys.unhandled(self._group, pending.entry.event_type),) if bounded else ()),
        )

    def _settle_args(self, settlement: Settlement) -> tuple[str | bytes | int, ...]:
        run, outcome = settlement.run, settlement.outcome
        failure = outcome.failed[0] if outcome.failed else None
        marks: list[str] = []
        for handler in outcome.finished:
            marks += (handler, "")
        for given_up in outcome.failed:
            marks += (given_up.handler, f"{given_up.reason}\n{self._bare(given_up.error)}")
        later: list[str | int] = []
        for each in outcome.later:
            later += (each.handler, each.made, int(each.after * 1000))
        verdict = _verdict(settlement)
        error = failure.error if failure else outcome.error
        return (
            run.token,
            verdict,
            self._group,
            run.pending.entry_id,
            self._unhandled_limit
            if _is_unhandled(outcome)
            else int((outcome.retry_after or 0) * 1000),
            failure.reason if failure else "",
            self._bare(error) if error else "",
            failure.handler if failure else "",
            self._mark_ttl,
            UNSETTLED,
            len(marks),
            len(later),
            *marks,
            *later,
            *(run.pending.entry.fields() if verdict == "dead" else ()),
        )

    def _bare(self, error: str) -> str:
        """An error's text as it may be kept; redaction can make it longer than it was."""
        return self._redact(error).encode("utf-8", "replace")[:MAX_ERROR].decode(errors="ignore")


def _is_unhandled(outcome: Outcome) -> bool:
    """Whether it becomes a dead letter of the kind whose number is bounded."""
    return outcome.verdict == "dead" and outcome.failed[0].reason == UNHANDLED


def _recorded(answer: Any) -> bool | None:
    return None if isinstance(answer, Exception) else answer > 0


def _place(run: Run) -> tuple[str, str, str, str]:
    pending = run.pending
    return pending.stream, pending.entry.event_id, run.token, pending.entry_id


def _is_plain(settlement: Settlement) -> bool:
    return settlement.run.fresh and _verdict(settlement) == "done"


def _verdict(settlement: Settlement) -> str:
    verdict = settlement.outcome.verdict
    return "crash" if verdict == "retry" and settlement.outcome.crashed else verdict
