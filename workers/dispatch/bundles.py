"""Decides how many events one request to the pool carries: several if handlers are quick.

A request costs a prefork pool about 0.2 ms, more than many a handler. Events of one bundle run one
after the other, so a slow one would hold up the rest: the longest recent run counts, and one slow
run sends the events of its type out singly for hundreds of requests.
"""

from __future__ import annotations

import threading

BUNDLE_SECONDS = 0.005
"""Seconds that a bundle should take at most."""

MAX_BUNDLE = 16
"""Events in a bundle at most; as many are tried again when its process dies."""

FORGETTING = 0.99
"""Factor by which each later request reduces the longest run."""

SHORTEST = 1e-5
"""Seconds; less is not worth telling apart."""


class Bundles:
    """Sizes bundles by how long the handlers of each task run; callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._longest: dict[str, float] = {}

    def ran(self, task: str, longest: float) -> None:
        """Note the longest run of one event in a request, in seconds."""
        with self._lock:
            remembered = self._longest.get(task, SHORTEST) * FORGETTING
            self._longest[task] = max(longest, remembered, SHORTEST)

    def size(self, task: str, waiting: int, free: int) -> int:
        """Events to put into the next request of this task.

        Args:
            task: whose handlers have not run yet: one event, to see.
            waiting: events that wait for the pool.
            free: requests that the pool takes now; bundles must not keep its slots empty.
        """
        longest = self._longest.get(task)
        if longest is None:
            return 1
        return max(1, min(MAX_BUNDLE, int(BUNDLE_SECONDS / longest), waiting // max(1, free)))
