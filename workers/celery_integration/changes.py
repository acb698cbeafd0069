"""Registers and unregisters handlers while a worker runs, in all of its processes.

`control.py` receives the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal, NamedTuple

from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.loading import plugins
from flybridge.handlers.registry import registry
from flybridge.workers.routes.routing import Routing


class Change(NamedTuple):
    """What an operator asked for."""

    action: Literal["register", "unregister"]
    what: str
    """A module, or the name of a handler."""
    names: tuple[str, ...] = ()
    """The handlers that came or went, here."""


class Made(NamedTuple):
    """The changes that a process has made since its start."""

    revision: int = 0
    """How many there were."""
    changes: tuple[Change, ...] = ()
    """Each as it was made last: repeated in this order, they lead to the same handlers."""

    def plus(self, change: Change) -> Made:
        """With one more, which stands for an equal one before."""
        same = [each for each in self.changes if each[:2] == change[:2]]
        others = [each for each in self.changes if each not in same]
        names = (name for each in (*same, change) for name in each.names)
        changes = (*others, change._replace(names=tuple(dict.fromkeys(names))))
        return Made(self.revision + 1, tuple(_still_needed(changes)))


def _still_needed(changes: tuple[Change, ...]) -> Iterator[Change]:
    """Leave out registrations of which nothing is left: repeating them might fail."""
    for number, change in enumerate(changes, start=1):
        gone = {later.what for later in changes[number:] if later.action == "unregister"}
        if change.action == "unregister" or not gone.issuperset(change.names or {""}):
            yield change


NONE_MADE = Made()


class Changes:
    """Makes the changes of one process; a forked child inherits its parent's.

    Args:
        queues: that workers may have.
    """

    def __init__(
        self,
        adopt: Callable[[Routing], None],
        queues: Callable[[], Collection[str]],
        *,
        parallel: bool,
    ) -> None:
        self._adopt = adopt
        self._queues = queues
        self._parallel = parallel
        self.made = NONE_MADE
        self.behind: set[int] = set()
        """Pids of the pool's children that existed at the last change and may not have made it.

        A child that dies meanwhile has died of the change, not of its events.
        """

    def make(self, change: Change) -> tuple[str, ...]:
        """Make a change here, all of it or nothing; later requests tell the pool's children.

        Returns:
            The names of the handlers that came or went.

        Raises:
            RegistrationInvalid, PluginBroken: why not.
        """
        with registry.loading(change.what):
            names = self._apply(change)
            routing = Routing.of(registry, parallel=self._parallel)
            self._check_queues(routing)
        self._adopt(routing)
        self.made = self.made.plus(change._replace(names=names))
        return names

    def follow(self, made: Made) -> None:
        """Make the changes that another process of this worker has made, unless that is done.

        Raises:
            RegistrationInvalid, PluginBroken: one of them cannot be made in this process.
        """
        if made.revision <= self.made.revision:
            return
        for change in made.changes:
            _repeat(change)
        self._adopt(Routing.of(registry, parallel=self._parallel))
        self.made = made

    def _apply(self, change: Change) -> tuple[str, ...]:
        if change.action == "unregister":
            registry.unregister(change.what)
            return (change.what,)
        before = registry.revision
        names = tuple(each.name for each in plugins.load_late(change.what))
        if registry.revision == before and not registry.has(change.what):
            raise RegistrationInvalid(
                f"{change.what} registers no handler; decorate one with @handles(…)"
            )
        return names

    def _check_queues(self, routing: Routing) -> None:
        known = set(self._queues())
        for route in routing.routes.values():
            if route.queue not in known:
                raise RegistrationInvalid(
                    f"{route.task} wants queue {route.queue!r}, which this worker was not started "
                    "with; name the module in FLYBRIDGE_HANDLERS and start the workers again"
                )


def _repeat(change: Change) -> None:
    """Make a change again, perhaps for the second time, perhaps without some before it."""
    module = change.what if change.action == "register" else ""
    for name in change.names if module else (change.what,):
        # Where the change was made first, the name was free by then, or became free by it.
        if registry.get(name) is not None and not (module and registry.has(module, name)):
            registry.unregister(name)
    if module:
        plugins.load_late(module)
