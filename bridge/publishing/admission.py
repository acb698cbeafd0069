"""Admission: how many events may wait for Redis.

Further events are refused. Feishu keeps them and sends them again a few seconds later.
"""

from __future__ import annotations

from flybridge.handlers.loggers import get_logger

CALM_AFTER = 5.0
"""Seconds without a refusal after which the next event that is taken ends the shortage."""

_CURES = {
    True: "Feishu sends them again; see whether Redis is slow, or raise "
    "FLYBRIDGE_MESSAGE_QUEUE_CAPACITY",
    False: "Feishu sends them again; FLYBRIDGE_MESSAGE_QUEUE=true lets events wait instead",
}

log = get_logger(__name__)


class Admission:
    """Decides whether one more event may wait.

    Args:
        entries: entries that may wait for an answer at a time; 0: as many as memory allows.
        queue: False: no entry may wait for those before it, whatever `entries` says.
    """

    def __init__(self, entries: int = 0, *, queue: bool = True) -> None:
        self.queue = queue
        self._entries = entries
        self._refused = 0
        self._last = 0.0

    def takes(self, waiting: int, now: float, *, busy: bool) -> bool:
        """Whether an entry is admitted. Logs the first refusal, and the end of the shortage.

        Args:
            waiting: entries without an answer.
            now: monotonic seconds.
            busy: whether a new entry could not be sent at once.
        """
        if self._is_full(waiting) if self.queue else busy:
            self._refuse(waiting, now)
            return False
        if self._refused and now - self._last >= CALM_AFTER:
            log.info("queue.relieved", refused=self._refused)
            self._refused = 0
        return True

    def _is_full(self, waiting: int) -> bool:
        return 0 < self._entries <= waiting

    def _refuse(self, waiting: int, now: float) -> None:
        self._refused, self._last = self._refused + 1, now
        if self._refused == 1:
            log.warning("queue.filled", waiting=waiting, cure=_CURES[self.queue])
