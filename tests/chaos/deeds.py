"""Reads what actors write, as it grows: the deeds of handlers and the log lines that matter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.history import Deed, Settled

SETTLED = "attempt.settled"
TAKING = ("intake.started", "inline.started")
"""What a worker logs when it takes events, by Celery and without."""
KEPT = frozenset({"lease.acquired", "lease.lost", "feishu.connected", *TAKING, SETTLED})


class Tail:
    """The whole lines of a file that were written since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def lines(self) -> Iterator[str]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            # Whoever is killed while it writes leaves half a line for ever; the next one ends it.
            whole, newline, _ = file.read().rpartition(b"\n")
        self._at += len(whole) + len(newline)
        if whole:
            yield from whole.decode(errors="replace").split("\n")


class DeedsFile:
    """What handlers did."""

    def __init__(self, path: Path) -> None:
        self.deeds: list[Deed] = []
        self.ended: set[str] = set()
        """Events of which some handler has ended."""
        self.open: dict[tuple[str, str, int], Deed] = {}
        """Event, handler and pid -> its start, as long as it has not ended."""
        self._tail = Tail(path)

    def look(self) -> None:
        """Read on."""
        for line in self._tail.lines():
            name, handler, event_id, attempt, actor, pid, time = line.split("\t")
            deed = Deed(name, handler, event_id, int(attempt), actor, int(pid), float(time))  # type: ignore[arg-type]
            self.deeds.append(deed)
            if name == "overlapped":
                continue
            if name == "started":
                self.open[event_id, handler, deed.pid] = deed
            else:
                self.open.pop((event_id, handler, deed.pid), None)
                self.ended.add(event_id)


class LogFile:
    """What one actor logged, of the events that are `KEPT`; the others are counted by level.

    Args:
        offset: monotonic seconds minus Unix seconds.
    """

    def __init__(self, path: Path, offset: float) -> None:
        self.actor = path.stem
        self.settled: list[Settled] = []
        self.events: list[tuple[str, float, dict[str, Any]]] = []
        """Name, time and fields."""
        self.trouble: Counter[str] = Counter()
        """`level event` -> lines, from error on."""
        self._tail = Tail(path)
        self._offset = offset

    def look(self) -> None:
        """Read on."""
        for line in self._tail.lines():
            # Most lines are debug lines of no interest here: no JSON for those.
            if '"attempt.settled"' in line or '"level": "debug"' not in line:
                self._take(line)

    def has(self, event: str, since: float = 0.0) -> float | None:
        """When it was first logged since."""
        return next((at for name, at, _ in self.events if name == event and at >= since), None)

    def _take(self, line: str) -> None:
        try:
            record = json.loads(line)
            event, level = record["event"], record["level"]
            at = datetime.fromisoformat(record["timestamp"]).timestamp() + self._offset
        except (ValueError, KeyError, TypeError):
            return  # the traceback of a crash, or a line that its writer's death cut off
        if level in ("error", "critical"):
            self.trouble[f"{level} {event}"] += 1
        if event == SETTLED:
            self.settled.append(self._settled(record, at))
        elif event in KEPT:
            self.events.append((event, at, record))

    def _settled(self, record: dict[str, Any], at: float) -> Settled:
        return Settled(
            record["event_id"],
            int(record["attempt"]),
            tuple(record["finished"]),
            record["verdict"],
            bool(record["recorded"]),
            self.actor,
            at,
        )
