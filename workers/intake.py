"""The intake: from the streams to the pool and back, in three threads of the worker's main process.

One reads and claims, one settles what ended, one keeps what is held: renews it, takes over what a
dead worker left, brings back retries that are due. They are threads so that neither a slow handler
nor a slow Redis can stop the renewal. What runs a claimed event is `handover.py`'s; the intake
knows no Celery.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from workers.guard import Busy, Claim, Duplicate, Guard, Pending, Run, Settlement
from workers.outcomes import Outcome
from workers.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workers.reader import Caps, StreamReader
    from workers.spans import IntakeSpans
    from workers.waiting import Waiting

log = structlog.get_logger("workers.intake")

BLOCK = 1.0
"""Seconds one read waits for entries; also how long a new event type may go unnoticed.

Less than the client waits for a reply."""

DUE_PERIOD = 0.25
"""Seconds between looks for retries that are due."""

PAUSED_BLOCK = 0.1
"""Seconds of the same while a limited stream is left alone, for it may have room again soon."""

FETCH_DELAY = 0.02
"""Seconds between two of them at least, however many are due."""

SWEEP_PERIOD = 60.0
"""Seconds between looks for consumers whose workers are gone."""

SETTLE_DELAY = 0.005
"""Seconds to gather outcomes; settled one by one they would cost ten times as much."""


@dataclass(slots=True)
class _Held:
    run: Run
    until: float
    """Monotonic seconds until which the claim is ours for sure."""


class Intake:
    """Holds what this worker has claimed, from the read to the settlement.

    Args:
        reader: the streams; used by two of the threads.
        guard: claims and settles.
        streams: gives the streams to read; called every second.
        event_lease: seconds; a third of it is the period of renewal.
        waiting: where claimed events wait; the owner of the pool takes them out.
        wake: called from any thread when some have come.
        spans: of this worker.
        died: called when a thread ends by a mistake of ours; the worker is no use without it.
        disconnect: closes the connections to Redis that nobody is using.
    """

    def __init__(
        self,
        reader: StreamReader,
        guard: Guard,
        streams: Callable[[], Iterable[str]],
        event_lease: float,
        waiting: Waiting,
        wake: Callable[[], None],
        spans: IntakeSpans,
        died: Callable[[], None],
        disconnect: Callable[[], None],
    ) -> None:
        self._died = died
        self._disconnect = disconnect
        self._spans = spans
        self._reader = reader
        self._guard = guard
        self._streams = streams
        self._event_lease = event_lease
        self._waiting = waiting
        self._wake = wake
        self._window = Window(time.monotonic())
        self._held: dict[str, _Held] = {}
        self._entries: set[tuple[str, str]] = set()
        self._ended: deque[Settlement] = deque()
        self._settling = 0
        self._room = threading.Condition()
        self._any_ended = threading.Event()
        self._any_settled = threading.Event()
        self._early: dict[tuple[str, str], Pending] = {}
        self._fetching = threading.Lock()
        self._troubled: dict[str, str] = {}
        self._in_doubt = threading.Event()
        self._stopping = threading.Event()
        self._closing = threading.Event()
        self._complete = threading.Event()
        self._threads: list[threading.Thread] = []
        self.slots = 1
        self.settled = 0
        self.duplicates = 0

    def start(self) -> None:
        """Start the threads; further calls do nothing."""
        if self._threads:
            return
        self._threads = [
            threading.Thread(target=self._alive, args=(name, work), name=f"flybridge-{name}")
            for name, work in (("read", self._read), ("settle", self._settle), ("keep", self._keep))
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def give_back(self, runs: Iterable[Run], after: float = 0.0) -> None:
        """Leave events whose handlers never started to any worker, in so many seconds."""
        returned = Outcome(retry_after=after)
        self._ended.extend(Settlement(run, returned, returned=True) for run in runs)
        self._any_ended.set()

    def end(self, run: Run, outcome: Outcome) -> None:
        """An attempt has ended; callable from any thread."""
        self._ended.append(Settlement(run, outcome))
        self._any_ended.set()

    @property
    def held(self) -> int:
        """Entries read and not yet settled."""
        return len(self._held)

    def ours(self, run: Run) -> bool:
        """Whether the claim is ours for sure: what another may have taken over must not start.

        Reckoned from before each call to Redis, our lease ends before Redis' does, however late
        the answer came.
        """
        held = self._held.get(run.token)
        return held is not None and time.monotonic() < held.until

    def _runs(self) -> list[Run]:
        return [each.run for each in list(self._held.values())]

    @property
    def unsettled(self) -> int:
        """Attempts that ended, of which Redis does not know yet."""
        return len(self._ended) + self._settling

    def stop(self) -> None:
        """Read no more, and give back what nobody has started."""
        self._stopping.set()
        with self._room:
            self._room.notify()
        self.give_back(self._waiting.drain())
        self._threads[0].join(BLOCK + 5)
        if self._fetching.acquire(timeout=BLOCK):
            self._fetching.release()
        # What the last read brought, and the last look for others.
        self.give_back(self._waiting.drain())

    def close(self) -> None:
        """Settle what ended, and leave the groups; attempts cut off are for retry at once."""
        if not self._threads:
            return
        self._stopping.set()
        self._closing.set()
        self._any_settled.set()
        read, settle, keep = self._threads
        # First those that claim, then who settles what they claimed.
        for thread in (keep, read):
            thread.join(5)
        self.give_back(self._waiting.drain())
        ended = {each.run.token for each in list(self._ended)}
        cut_off = Outcome(retry_after=0.0, error="the worker was stopped in the middle")
        self._ended.extend(
            Settlement(run, cut_off) for run in self._runs() if run.token not in ended
        )
        self._complete.set()
        self._any_ended.set()
        settle.join(5)
        self._leave()
        self._spans.close()

    def _leave(self) -> None:
        # Twice, for a connection that was idle for long may be cut, unseen until it is used.
        for _ in range(2):
            with self._outage("leave"):
                self._reader.leave()
                return

    def _alive(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            # Redis' failures never come here. A worker that lives on half dead would be worse.
            log.exception("intake.died", thread=name, hint="the worker ends; restart it")
            self._died()

    def _read(self) -> None:
        followed = 0.0
        while not self._stopping.is_set():
            room = self._wait_for_room()
            if not room:
                continue
            with self._outage("read"):
                if not self._reader.streams or time.monotonic() - followed > BLOCK:
                    self._reader.follow(self._streams())
                    followed = time.monotonic()
                if self._in_doubt.is_set():
                    self._in_doubt.clear()
                    self._accept(self._reader.own_pending())
                self._read_once(room)

    def _read_once(self, room: int) -> None:
        streams = self._reader.streams
        caps = self._waiting.limits.caps(streams)
        paused = sum(most == 0 for most in caps.values())
        if paused == len(streams):
            # Or none is known: Celery's consumer says after its start which queues it reads.
            self._stopping.wait(PAUSED_BLOCK / 2)
        self._accept(self._reader.read(room, PAUSED_BLOCK if paused else BLOCK, caps))

    def _wait_for_room(self) -> int:
        with self._room:
            size = self._window.size(self.slots)
            room = size - self._in_the_way
            # Half a window at a time: small reads would cost a round trip each.
            if room >= max(1, size // 2):
                return room
            self._room.wait(BLOCK)
            return 0

    def _accept(self, items: Iterable[Pending]) -> None:
        new = [item for item in items if _place(item) not in self._entries]
        if not new:
            return
        started, asked = time.time_ns(), time.monotonic()
        claims = self._guard.claim(new)
        runs = [claim for claim in claims if isinstance(claim, Run)]
        self._spans.claimed(runs, started, time.time_ns())
        for run in runs:
            self._held[run.token] = _Held(run, asked + self._event_lease)
            self._entries.add(_place(run.pending))
        self._waiting.add(runs)
        self._wake()
        self._set_aside(claims)

    def _set_aside(self, claims: Iterable[Claim]) -> None:
        duplicates = [claim.pending for claim in claims if isinstance(claim, Duplicate)]
        if duplicates:
            self.duplicates += len(duplicates)
            self._reader.acknowledge(duplicates)
            log.debug("event.duplicate", count=len(duplicates))
        for claim in claims:
            if isinstance(claim, Busy):
                self._reader.postpone(claim.pending, claim.left)

    def _settle(self) -> None:
        while not (self._complete.is_set() and not self._ended):
            self._any_ended.wait()
            self._complete.wait(SETTLE_DELAY)
            self._any_ended.clear()
            self._settling = len(self._ended)
            batch = [self._ended.popleft() for _ in range(self._settling)]
            while batch:
                with self._outage("settle"):
                    started = time.time_ns()
                    recorded = self._guard.settle(batch)
                    self._spans.settled(batch, started, time.time_ns())
                    self._settled(batch, recorded)
                    batch = []
                if batch and self._complete.is_set():
                    # Redis is away at shutdown: another worker will run these again.
                    log.error("settle.given_up", count=len(batch))
                    break

    def _settled(self, batch: list[Settlement], recorded: list[bool]) -> None:
        debugging = logging.getLogger().isEnabledFor(logging.DEBUG)
        for settlement, kept in zip(batch, recorded, strict=True):
            run = settlement.run
            self._held.pop(run.token, None)
            self._entries.discard(_place(run.pending))
            if kept and settlement.outcome.verdict == "dead":
                self._log_dead(settlement)
            if debugging:
                _log_settled(settlement, recorded=kept)
        lost = [each.run for each, kept in zip(batch, recorded, strict=True) if not kept]
        if lost:
            log.warning(
                "claim.lost",
                event_id=lost[0].pending.entry.event_id,
                attempt=lost[0].attempt,
                count=len(lost),
                hint="another worker has taken over, and its outcome counts; or Redis lost data",
            )
        self._settling = 0
        self.settled += len(batch)
        if self._waiting.suspects.reserved:
            self._wake()
        self._window.settled(len(batch), time.monotonic())
        self._any_settled.set()
        with self._room:
            self._room.notify()

    def _log_dead(self, settlement: Settlement) -> None:
        entry, failure = settlement.run.pending.entry, settlement.outcome.failed[0]
        log.error(
            "event.dead",
            event_id=entry.event_id,
            event_type=entry.event_type,
            handler=failure.handler,
            reason=failure.reason,
            attempt=settlement.run.attempt,
            dead_letters=self._guard.dead_letters,
        )

    def _keep(self) -> None:
        renewed, looked, swept = 0.0, 0.0, time.monotonic()
        while not self._closing.is_set():
            self._any_settled.clear()
            more = False
            with self._outage("keep"):
                now = time.monotonic()
                if now - renewed >= self._event_lease / 3:
                    self._renew()
                    renewed = now
                if now - looked >= self._event_lease / 3:
                    more = self._fetch(self._reader.take_over)
                    looked = looked if more else now
                more = self._fetch(self._reader.due) or more
                if now - swept >= SWEEP_PERIOD:
                    swept = now
                    self._reader.sweep()
            self._closing.wait(FETCH_DELAY)
            # What there was no room for is taken as soon as there is some.
            (self._any_settled if more else self._closing).wait(DUE_PERIOD)

    def _renew(self) -> None:
        held = list(self._held.values())
        if not held:
            return
        runs, asked = [each.run for each in held], time.monotonic()
        kept = self._guard.renew(runs)
        for each, ours in zip(held, kept, strict=True):
            each.until = asked + self._event_lease if ours else 0.0
        self._reader.renew(run.pending for run, ours in zip(runs, kept, strict=True) if ours)

    def _fetch(self, source: Callable[[int, Caps], list[Pending]]) -> bool:
        """Claim what a source has for us; True if it may have more."""
        size = self._window.size(self.slots)
        # Half a window more than `_read` fills: in a backlog nothing would be left for retries.
        room = size + (size + 1) // 2 - self._in_the_way
        with self._fetching:
            if self._stopping.is_set():
                return False
            if room <= 0 or not self._reader.streams:
                return True
            found = source(room, self._waiting.limits.caps(self._reader.streams))
            items = self._early | {_place(item): item for item in found}
            # A retry may be due before `_settled` has seen that the last attempt is over.
            self._early = {place: item for place, item in items.items() if place in self._entries}
            self._accept(items.values())
        return bool(found)

    @property
    def _in_the_way(self) -> int:
        """Events that count against the window; who waits for a limit keeps nobody out."""
        return len(self._held) - self._waiting.limits.parked

    @contextmanager
    def _outage(self, doing: str) -> Iterator[None]:
        """Log a failure of Redis, once, and go on: every loop here asks again."""
        try:
            yield
        except ResponseError as error:
            self._unwell("redis.refused", doing, error)
            if "NOGROUP" in str(error) or "UNBLOCKED" in str(error):
                with self._outage(doing):
                    self._reader.forget_groups()
        except (RedisError, OSError) as error:
            self._unwell("redis.lost", doing, error)
        else:
            if self._troubled.pop(doing, None) and not self._troubled:
                log.info("redis.recovered")

    def _unwell(self, event: str, doing: str, error: Exception) -> None:
        # An answer that was lost has left entries with us that nothing will give again.
        self._in_doubt.set()
        reason = str(error) or type(error).__name__
        if isinstance(error, RedisTimeoutError):
            # Their way may be gone for all connections alike, and each would time out by itself.
            self._disconnect()
        if not self._troubled:
            log.warning(event, doing=doing, error=reason)
        self._troubled[doing] = reason
        # Not `_stopping`: while the last handlers end, settling must not ask without a pause.
        self._complete.wait(DUE_PERIOD)


def _place(item: Pending) -> tuple[str, str]:
    return item.stream, item.entry_id


def _log_settled(settlement: Settlement, *, recorded: bool) -> None:
    entry, outcome = settlement.run.pending.entry, settlement.outcome
    log.debug(
        "attempt.settled",
        event_id=entry.event_id,
        event_type=entry.event_type,
        attempt=settlement.run.attempt,
        verdict="return" if settlement.returned else outcome.verdict,
        finished=list(outcome.finished),
        recorded=recorded,
    )
