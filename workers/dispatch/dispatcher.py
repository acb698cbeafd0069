"""The dispatcher: gives claimed events to a pool as it has room, and takes back what it drops.

What waits takes turns: the events of each limited task, and all others. An event that is suspected
of killing its process has the pool to itself.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from flybridge.handlers.loggers import get_logger
from flybridge.workers.backlog import quarantine
from flybridge.workers.backlog.limits import RECHECK_PERIOD
from flybridge.workers.dispatch.bundles import Bundles
from flybridge.workers.dispatch.relief import STUCK_AFTER, Relief
from flybridge.workers.run.failures import crashed
from flybridge.workers.run.items import item_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flybridge.workers.backlog.waiting import Waiting
    from flybridge.workers.claim.claims import Run
    from flybridge.workers.claim.outcomes import Outcome
    from flybridge.workers.dispatch.pool_protocol import Call, Pool, Request
    from flybridge.workers.intake.held import Held
    from flybridge.workers.intake.settler import Settler
    from flybridge.workers.intake.spans import IntakeSpans
    from flybridge.workers.routes.routing import Routing

log = get_logger(__name__)

SHOWN_REQUESTS = 5
"""Requests that are named when somebody waits for them."""

MAX_REFUSALS = 5
"""Attempts that a pool may refuse, by an exception, before their event is given up."""

LEFT_DELAY = 5.0
"""Seconds until others may run an event whose handler goes on in a thread, which should end with
this process."""

LEFT = f"it goes on in a thread; end this process: in {LEFT_DELAY:g} s others may run the event"

ALARM_DELAY = 0.001
"""Seconds that the timer may be late."""


class Dispatcher:
    """Gives the events that wait to one pool; belongs to the pool's loop.

    Args:
        held: tells which claims are still ours, and how much more to claim.
        isolate: notes that an event runs alone; see `quarantine.Isolation`.
    """

    def __init__(
        self,
        routing: Routing,
        pool: Pool,
        waiting: Waiting,
        held: Held,
        settler: Settler,
        spans: IntakeSpans,
        isolate: Callable[[Run], int | None],
    ) -> None:
        self._routing = routing
        self._pool = pool
        self._waiting = waiting
        self._held = held
        self._settler = settler
        self._spans = spans
        self._isolate = isolate
        self._requests: dict[Request, float] = {}
        # Held to take out what waits: by the pool's loop, or by `relieve`.
        self._picking = threading.Lock()
        self._given = self._ended = 0
        self._relief = Relief()
        self._bundles = Bundles()
        self._alarm = _Alarm(pool, self.dispatch)
        self._turn = 0
        pool.listen(self.dispatch)

    @property
    def requests(self) -> int:
        """Requests that the pool has."""
        return len(self._requests)

    def in_work(self) -> dict[str, Any]:
        """The requests that the pool has, as fields of a log line; callable from any thread."""
        requests = list(self._requests)
        shown = [
            f"{each.task_name}[{_event_id(each.runs[0])}]" for each in requests[:SHOWN_REQUESTS]
        ]
        return {"running": len(requests), "waits_for": " ".join(shown)} if requests else {}

    def resume(self) -> None:
        """Go on after the pool's loop was restarted and has dropped its timers."""
        self._alarm.forget()
        self._pool.wake()

    def recall(self) -> None:
        """Take back the requests that the pool drops without saying so."""
        for request in [each for each in list(self._requests) if each.forget()]:
            self._forget(request)
            if request.is_running:
                self._settler.give_back(request.runs, LEFT_DELAY)
                log.warning("handler.left", event_id=_event_id(request.runs[0]),
                            events=len(request.runs), hint=LEFT)  # fmt: skip
            else:
                self._waiting.put_back(request.runs)

    def relieve(self) -> None:
        """Give back what waits for a pool that makes no headway; called by one thread."""
        now, woken_at = time.monotonic(), self._pool.woken_at
        if not self._pool.is_open:
            return
        deaf = woken_at is not None and now - woken_at > STUCK_AFTER
        has_room = self._free() > 0 and not self._waiting.suspects.reserved
        self._relief.look(self._ended, deaf=deaf, has_room=has_room)
        taken_back = [
            request
            for request in self._relief.stuck(dict(self._requests), now)
            if request.take_back()
        ]
        for request in taken_back:
            self._forget(request)
        runs = [run for request in taken_back for run in request.runs]
        runs += self._waiting_in_vain(now, deaf=deaf)
        if runs:
            self._relief.begin(self._ended, taken_back, deaf=deaf)
            self._settler.give_back(runs)
            log.debug("events.given_back", count=len(runs), reason="the pool makes no headway")
        if self._held.paused != self._relief.is_on:
            self._held.paused = self._relief.is_on

    def _waiting_in_vain(self, now: float, *, deaf: bool) -> list[Run]:
        still = self._relief.stands_still(
            self._given + self._ended, now, waits=bool(self._waiting.ready)
        )
        with self._picking:
            if deaf:
                return self._waiting.drain()
            return self._waiting.drain_ready() if still else []

    def abandon(self) -> None:
        """Ignore the outcomes of all requests from now on; callable from any thread."""
        for request in list(self._requests):
            request.abandon()

    def dispatch(self) -> None:
        """Give the pool as much as it takes now."""
        if not self._pool.is_open:
            return
        self._held.slots = self._pool.slots
        self._hand_suspects()
        if not self._waiting.suspects.reserved:
            while self._hand_next():
                continue
        self._settler.give_back(self._waiting.excess(), RECHECK_PERIOD)
        self._alarm.set(self._next_look())

    def _hand_suspects(self) -> None:
        """Hand over suspects whose turn it is, when nothing is in the pool that a crash would hit,
        or nothing but what hangs there."""
        suspects = self._waiting.suspects
        others = bool(self._waiting.ready) or self._wait() == 0.0
        while run := suspects.take(self._beside(), others=others):
            if self._beside():
                self._hand(self._task_of(run), [run])
                continue
            before = self._ran_alone(run)
            if before is None:
                suspects.put_back(run)
                return
            outcome = quarantine.verdict(run, self._max_attempts(self._task_of(run)), before)
            if outcome:
                self._settler.end(run, outcome)
                continue
            log.info("suspect.runs_alone", event_id=_event_id(run), attempt=run.attempt,
                     crashes=run.crashes)  # fmt: skip
            self._hand(self._task_of(run), [run])

    def _ran_alone(self, run: Run) -> int | None:
        """In which attempt it ran alone last, as far as Redis has said so."""
        try:
            return self._isolate(run)
        except RedisError as error:
            log.warning("suspect.waits", event_id=_event_id(run), error=str(error),
                        hint="Redis cannot be asked; tried again in a second")  # fmt: skip
            return None

    def _hand_next(self) -> bool:
        """Give one request to the pool. Tasks take turns, so that none fills the pool alone."""
        turns: list[Callable[[], bool]] = [
            self._hand_ready,
            *(partial(self._hand_parked, task) for task in self._waiting.limits.tasks()),
            *(partial(self._hand_batch, task) for task in self._waiting.batches.tasks()),
        ]
        for _ in turns:
            self._turn += 1
            if turns[self._turn % len(turns)]():
                return True
        return False

    def _next_look(self) -> float | None:
        """Seconds until something may start without a wake-up; None: nothing will."""
        suspects = self._waiting.suspects.wait()
        if self._waiting.suspects.reserved:
            return min(RECHECK_PERIOD, suspects or 0.0)
        waits = (suspects, self._wait() if self._free() > 0 else None)
        return min((max(0.0, wait) for wait in waits if wait is not None), default=None)

    def _wait(self) -> float | None:
        """Seconds until a limit or a batch may let more through; None: not by time alone."""
        limits, batches = self._waiting.limits, self._waiting.batches
        waits = [limits.wait()]
        for task in batches.tasks():
            delay = limits.delay(task)
            waits.append(None if delay is None else max(delay, batches.wait(task)))
        return min((wait for wait in waits if wait is not None), default=None)

    def _free(self) -> int:
        return self._pool.depth - len(self._requests)

    def _hand_ready(self) -> bool:
        free = self._free()
        with self._picking:
            if free <= 0 or not self._waiting.ready:
                return False
            run = self._waiting.ready.popleft()
            task = self._task_of(run)
            if self._waiting.limits.limited(task):
                # An operator has set a rate since it was claimed.
                self._waiting.limits.park([run])
                return True
            bundle = self._next_bundle(task, run, free)
        self._hand(task, bundle)
        return True

    def _hand_parked(self, task: str) -> bool:
        with self._picking:
            run = self._waiting.limits.take(task) if self._free() > 0 else None
        if run is None:
            return False
        self._hand(task, [run])
        return True

    def _hand_batch(self, task: str) -> bool:
        batches = self._waiting.batches
        with self._picking:
            ready = self._free() > 0 and batches.is_ready(task)
            if not ready or not self._waiting.limits.admit(task):
                return False
            runs = batches.take(task)
        revoked = self._pool.revoked
        # A revocation names one event, and a request has one name.
        alone = [run for run in runs if _event_id(run) in revoked] if revoked else []
        for run in alone:
            self._hand(task, [run])
        self._hand(task, [run for run in runs if run not in alone] if alone else runs)
        return True

    def _next_bundle(self, task: str, first: Run, free: int) -> list[Run]:
        ready, runs = self._waiting.ready, [first]
        # An event that failed once goes alone: it may be what kills the process.
        if first.attempt > 1 or not self._bundled(task):
            return runs
        size = self._bundles.size(task, len(ready) + 1, free)
        while len(runs) < size:
            run = ready.popleft()
            if run.attempt > 1 or self._task_of(run) != task:
                ready.appendleft(run)
                break
            runs.append(run)
        return runs

    def _bundled(self, task: str) -> bool:
        # Where one attempt is allowed, a neighbour's crash would end the event; and a revocation
        # names one event only.
        return self._pool.bundles and self._max_attempts(task) > 1 and not self._pool.revoked

    def _beside(self) -> int:
        """Events that would run again if a suspect killed its process now.

        In prefork: those that it would wait behind, for a suspect that dies with the worker before
        it began must not count as one that ran alone.
        """
        if self._pool.shares_process:
            return len(self._requests) + self._settler.unsettled
        return len(self._requests) if len(self._requests) >= self._pool.slots else 0

    def _max_attempts(self, task: str) -> int:
        return self._routing.max_attempts_of(task)

    def _task_of(self, run: Run) -> str:
        return self._routing.task_of(run.pending.entry.event_type)

    def _hand(self, task: str, runs: list[Run]) -> None:
        runs = self._still_ours(runs)
        if not runs:
            return
        try:
            items = [item_of(run, self._spans.context(run)) for run in runs]
            request = self._pool.take_on(task, runs, items, self._finish)
        except Exception as error:
            # Whatever the pool or a signal receiver raises, the event must not be held for ever.
            log.exception("request.refused", task=task, events=len(runs),
                          hint="the pool, or a receiver of a Celery signal, raised this; the "
                          "events are tried again")  # fmt: skip
            for run in runs:
                self._settler.end(run, crashed(run, MAX_REFUSALS, repr(error)))
            return
        self._requests[request] = time.monotonic()
        self._given += 1
        self._waiting.limits.began(task, request)
        if self._routing.batch_of(task):
            self._waiting.batches.began(request, len(runs))
        # Only now, for a thread of the pool may have ended it meanwhile.
        if request.ended:
            self._forget(request)

    def _forget(self, request: Request) -> None:
        self._requests.pop(request, None)
        self._waiting.limits.ended(request.task_name, request)
        self._waiting.batches.ended(request)

    def _still_ours(self, runs: list[Run]) -> list[Run]:
        doubtful = [run for run in runs if not self._held.ours(run)]
        if not doubtful:
            return runs
        # If another worker has taken one over, the settlement will say so.
        self._settler.give_back(doubtful)
        return [run for run in runs if run not in doubtful]

    def _finish(self, request: Request, outcomes: Sequence[Outcome], longest: float) -> None:
        self._bundles.ran(request.task_name, longest)
        for run, outcome in zip(request.runs, outcomes, strict=False):
            self._settler.end(run, outcome)
        self._ended += 1
        # Not earlier, or a suspect could start while what just ended is not counted.
        self._forget(request)
        self._waiting.put_back(request.runs[len(outcomes) :])
        self._pool.wake()


class _Alarm:
    """A timer on the pool's loop that is set again and again; the soonest time counts."""

    def __init__(self, pool: Pool, answer: Callable[[], None]) -> None:
        self._pool = pool
        self._answer = answer
        self._call: Call | None = None
        self._due = 0.0

    def set(self, wait: float | None) -> None:
        """Call `answer` in so many seconds at the latest; None changes nothing."""
        if wait is None:
            return
        due = time.monotonic() + wait
        if self._call and self._due <= due + ALARM_DELAY:
            return
        if self._call:
            self._call.cancel()
        # A timer of no delay would wait for the next look of Celery's loop, up to a second.
        self._call = self._pool.call_after(max(wait, ALARM_DELAY), self._go_off)
        self._due = due

    def forget(self) -> None:
        """The loop has dropped its timers."""
        self._call = None

    def _go_off(self) -> None:
        self._call = None
        self._answer()


def _event_id(run: Run) -> str:
    return run.pending.entry.event_id
