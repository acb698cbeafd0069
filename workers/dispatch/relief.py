"""Notices that a pool makes no headway, so that what waits for it should go to other workers.

A handler may block its loop, or hanging handlers may have taken all of its slots. The dispatcher
gives the events back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flybridge.workers.dispatch.pool_protocol import Request

STUCK_AFTER = 1.0
"""Seconds that a claimed event waits for a pool without headway."""


class Relief:
    """Follows one pool; called several times a second by one thread."""

    def __init__(self) -> None:
        self._moves = -1
        self._since = 0.0
        self._is_on = False
        self._ended = 0
        self._deaf = False
        self._taken_back: list[Request] = []

    @property
    def is_on(self) -> bool:
        """Whether nothing more should be claimed for the pool."""
        return self._is_on

    def stuck(self, requests: Mapping[Request, float], now: float) -> list[Request]:
        """The requests that the pool should have come to by now.

        Args:
            requests: with the monotonic seconds when the pool was given each.
        """
        late = now - STUCK_AFTER
        return [each for each, given in requests.items() if given < late and not each.is_running]

    def stands_still(self, moves: int, now: float, *, waits: bool) -> bool:
        """Whether something has waited for a slot for long, and the pool has done nothing.

        Args:
            moves: grows whenever the pool has been given something, or has ended something.
            waits: whether anything waits now.
        """
        if moves != self._moves or not waits:
            self._moves, self._since = moves, now
        return now - self._since > STUCK_AFTER

    def begin(self, ended: int, taken_back: Iterable[Request], *, deaf: bool) -> None:
        """Events have been given back, so claim nothing more for now."""
        self._is_on, self._ended, self._deaf = True, ended, deaf
        self._taken_back += taken_back

    def look(self, ended: int, *, deaf: bool, has_room: bool) -> None:
        """Allow claims again if the pool has ended something, answers, or would begin something.

        Args:
            has_room: it would be given what comes. That says nothing about one that had to give
                something back.
        """
        if self._deaf or self._taken_back:
            reached = any(each.passed_over for each in self._taken_back)
            moves = not deaf and (self._deaf or reached)
        else:
            moves = has_room
        if moves or ended != self._ended:
            self._is_on = False
            self._taken_back.clear()
