"""What the dispatcher needs of a pool: `pool.py` and `pool.py` provide it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from flybridge.workers.claim.outcomes import Outcome

if TYPE_CHECKING:
    from flybridge.workers.backlog.limits import Bucket
    from flybridge.workers.claim.claims import Run
    from flybridge.workers.run.items import Item


class Request(Protocol):
    """One attempt at one event, or at each of a few, in the hands of the pool."""

    @property
    def task_name(self) -> str: ...

    @property
    def runs(self) -> Sequence[Run]: ...

    @property
    def ended(self) -> bool:
        """Its outcomes have been handed on."""

    @property
    def is_running(self) -> bool:
        """Handlers of it have begun, and may run now."""

    @property
    def passed_over(self) -> bool:
        """The pool would have begun it by now, had it not been taken back."""

    def forget(self) -> bool:
        """Give it up, if that is possible; True if nobody runs it now."""

    def abandon(self) -> None:
        """Give it up, begun or not: its outcomes are ignored."""

    def take_back(self) -> bool:
        """Give it up unless it has begun, callable from any thread; True if nobody runs it now."""


Finish = Callable[[Request, Sequence[Outcome], float], None]
"""Takes the outcomes of the request's events in order, and the seconds of the longest run; events
beyond the outcomes have not begun. Callable from any thread."""


class Call(Protocol):
    """A timer."""

    def cancel(self) -> object: ...


class Pool(Protocol):
    """One pool and its loop; only methods that say so may be called from other threads."""

    @property
    def is_open(self) -> bool:
        """Whether it takes requests now."""

    @property
    def slots(self) -> int:
        """How many events the pool runs at once."""

    @property
    def depth(self) -> int:
        """How many requests to give to it."""

    @property
    def shares_process(self) -> bool:
        """Whether a handler that kills its process kills the whole worker."""

    @property
    def bundles(self) -> bool:
        """Whether quick events should travel together."""

    @property
    def revoked(self) -> Collection[str]:
        """Ids of events that an operator has revoked: a request of one must hold no others."""

    def take_on(
        self, task: str, runs: Sequence[Run], items: Sequence[Item], finish: Finish
    ) -> Request:
        """Have the pool run these events; `finish` may be called before this returns.

        Raises:
            Exception: it will not.
        """

    def bucket_of(self, task: str) -> Bucket | None:
        """The bucket of its rate limit, None for no limit; callable from any thread."""

    def call_after(self, seconds: float, answer: Callable[[], None]) -> Call:
        """Have the loop call `answer` later."""

    def listen(self, answer: Callable[[], None]) -> None:
        """Have the loop call `answer` soon after each `wake` from now on."""

    def wake(self) -> None:
        """Callable from any thread; several calls may be one answer."""

    @property
    def woken_at(self) -> float | None:
        """Monotonic seconds of the first ring that the loop has not answered; None: of none."""
