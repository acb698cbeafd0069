"""Claims entries that were read, and puts them where the dispatcher takes them from.

What needs no handler here ends at once: duplicates are acknowledged, busy entries postponed, and
types without a handler settled as `unhandled.py` decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from flybridge.bridge.process.boottime import boottime
from flybridge.handlers.loggers import get_logger
from flybridge.workers.claim.claims import Busy, Claim, Duplicate, Pending, Run, Settlement

if TYPE_CHECKING:
    from flybridge.workers.backlog.waiting import Waiting
    from flybridge.workers.claim.guard import Guard
    from flybridge.workers.claim.outcomes import Outcome
    from flybridge.workers.group.unhandled import Unhandled
    from flybridge.workers.intake.held import Held
    from flybridge.workers.intake.pending_list import PendingList
    from flybridge.workers.intake.settler import Settler
    from flybridge.workers.intake.spans import IntakeSpans

log = get_logger(__name__)


class Claimer:
    """Claims for one worker; callable from any thread.

    Args:
        pending: acknowledges duplicates and postpones what another worker holds.
        event_lease: seconds for which a claim holds.
    """

    def __init__(
        self,
        guard: Guard,
        pending: PendingList,
        held: Held,
        waiting: Waiting,
        settler: Settler,
        unhandled: Unhandled,
        spans: IntakeSpans,
        event_lease: float,
        wake: Callable[[], None],
    ) -> None:
        self._guard = guard
        self._pending = pending
        self._held = held
        self._waiting = waiting
        self._settler = settler
        self._unhandled = unhandled
        self._spans = spans
        self._event_lease = event_lease
        self._wake = wake
        self._counting = threading.Lock()
        self.is_closed = False
        """Nothing more is claimed."""
        self.duplicates = 0
        self.unhandled = 0
        """Events that became dead letters because no worker of the group has a handler."""
        self.skipped = 0
        """Handlers that had succeeded under another event id."""

    def claim(self, items: Iterable[Pending]) -> None:
        """Claim those that are not held already.

        Raises:
            redis.RedisError: what was claimed is claimed again with the same tokens; repeat it.
        """
        new = [item for item in items if item not in self._held]
        if not new or self.is_closed:
            return
        # Before the claims: what is claimed and not decided about would be held without end.
        ends = self._unhandled.outcomes(item.entry.event_type for item in new)
        started, asked = time.time_ns(), boottime()
        claims = self._guard.claim(new)
        runs = [claim for claim in claims if isinstance(claim, Run)]
        self._spans.claimed(runs, started, time.time_ns())
        self._note_skipped(runs)
        self._held.add(runs, asked + self._event_lease)
        self._waiting.add(self._handled(runs, ends))
        self._wake()
        self._set_aside(claims)

    def _handled(self, runs: Sequence[Run], ends: Mapping[str, Outcome]) -> Sequence[Run]:
        """Those that this worker has handlers for; the others end here."""
        if not ends:
            return runs
        ended = [(run, ends.get(run.pending.entry.event_type)) for run in runs]
        self.unhandled += sum(end is not None and not end.returned for _, end in ended)
        self._settler.add([Settlement(run, end) for run, end in ended if end])
        return [run for run, end in ended if not end]

    def _note_skipped(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if run.skipped:
                with self._counting:
                    self.skipped += run.skipped
                log.debug(
                    "handler.skipped",
                    event_id=run.pending.entry.event_id,
                    count=run.skipped,
                    reason="it has succeeded for the business key of this event",
                )

    def _set_aside(self, claims: Iterable[Claim]) -> None:
        duplicates = [claim.pending for claim in claims if isinstance(claim, Duplicate)]
        if duplicates:
            with self._counting:
                self.duplicates += len(duplicates)
            self._pending.acknowledge(duplicates)
            log.debug("event.duplicate", count=len(duplicates))
            if any(each.line for each in duplicates):
                self._settler.lines_moved()
        for claim in claims:
            if isinstance(claim, Busy):
                self._pending.postpone(claim.pending, claim.left)
