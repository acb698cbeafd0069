"""Limits how many entries one read brings, so that its bytes stay bounded.

Redis counts entries only, and an envelope may have 10 MiB. The recent entries of a stream tell what
to expect of it.
"""

from __future__ import annotations

from collections.abc import Collection

BYTES = 8 * 1024 * 1024
"""Of one read, as far as it can be foreseen."""

MAX_ENTRIES = 256
"""Entries in a read at most, for all of them may be larger than any before."""

UNKNOWN = 64 * 1024
"""Bytes expected of an entry of a stream that has not been read yet."""

SMALLEST = 1024
"""Bytes; what Redis and we add to an entry is not counted otherwise."""

FORGETTING = 0.8
"""Factor by which each later read reduces the largest entry remembered."""


class ReadSizes:
    """Remembers the largest recent entries of each stream; callable from any thread."""

    def __init__(self) -> None:
        self._largest: dict[str, float] = {}

    def most(self, streams: Collection[str], budget: int = BYTES) -> int:
        """Entries of each of these streams that one read may bring."""
        expected = sum(self._largest.get(stream, UNKNOWN) for stream in streams)
        return max(1, min(MAX_ENTRIES, int(budget / max(expected, SMALLEST))))

    def note(self, stream: str, largest: int) -> None:
        """A read of this stream brought entries of so many bytes at most, 0 for none."""
        remembered = self._largest.get(stream, UNKNOWN) * FORGETTING
        self._largest[stream] = max(largest, remembered, SMALLEST)
