"""Joins the pieces of an event that came in several frames.

Feishu: the pieces of one push share `message_id`; `sum` is their number, `seq` (from 0) the index
of a piece. Pieces of 61,440 bytes were seen. A set that never completes is never acked, so Feishu
sends it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_PIECES = 256
MAX_BYTES = 16 * 1024 * 1024
"""Of one set."""
MAX_SETS = 64
"""Incomplete at one time."""
MAX_HELD = 64 * 1024 * 1024
"""Bytes of all incomplete sets together."""
SET_TTL = 30.0
"""Seconds from the first piece of a set to its end."""


class PieceRefused(Exception):
    """A piece is refused; `reason` is a `FrameOutcome`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(slots=True)
class _Set:
    expires: float
    total: int
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int = 0


class Fragments:
    """The incomplete sets of one connection, bounded in number, size and age."""

    def __init__(self) -> None:
        self.held = 0
        """Bytes kept now."""
        self.expired = 0
        """Sets given up because a piece never came."""
        self._sets: dict[str, _Set] = {}

    def __len__(self) -> int:
        return len(self._sets)

    def add(self, message_id: str, total: int, seq: int, piece: bytes, now: float) -> bytes | None:
        """Keep a piece; return the joined bytes when it was the last one missing.

        Raises:
            PieceRefused: `fragment_repeated`, `sum_changed`, `sets_full`, or `set_too_large`, and
                then the whole set is gone.
        """
        self.expire(now)
        if self.held + len(piece) > MAX_HELD:
            raise PieceRefused("sets_full")
        found = self._sets.get(message_id)
        if found is None:
            found = self._open(message_id, total, now)
        if total != found.total:
            raise PieceRefused("sum_changed")
        if seq in found.pieces:
            raise PieceRefused("fragment_repeated")
        self._keep(message_id, found, seq, piece)
        if len(found.pieces) < total:
            return None
        self._drop(message_id)
        return b"".join([found.pieces[index] for index in range(total)])

    def expire(self, now: float) -> None:
        """Drop the sets whose time is over."""
        while self._sets:
            message_id, oldest = next(iter(self._sets.items()))
            if now < oldest.expires:
                return
            self._drop(message_id)
            self.expired += 1

    def next_expiry(self) -> float:
        """When `expire` has something to do; infinity if there is no set."""
        return next(iter(self._sets.values())).expires if self._sets else float("inf")

    def _open(self, message_id: str, total: int, now: float) -> _Set:
        if len(self._sets) >= MAX_SETS:
            raise PieceRefused("sets_full")
        opened = self._sets[message_id] = _Set(expires=now + SET_TTL, total=total)
        return opened

    def _keep(self, message_id: str, found: _Set, seq: int, piece: bytes) -> None:
        if found.size + len(piece) > MAX_BYTES:
            self._drop(message_id)
            raise PieceRefused("set_too_large")
        found.pieces[seq] = piece
        found.size += len(piece)
        self.held += len(piece)

    def _drop(self, message_id: str) -> None:
        self.held -= self._sets.pop(message_id).size
