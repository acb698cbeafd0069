"""A handler, in a worker one of whose threads dies by a mistake as soon as it has read an event."""

from __future__ import annotations

from typing import Any

from flybridge.workers.intake.reader import StreamReader
from tests.scenarios.acting import act

__all__ = ["act"]

read = StreamReader.read


def read_once(self: StreamReader, *arguments: Any) -> Any:
    found = read(self, *arguments)
    if found:
        raise ZeroDivisionError("a mistake of ours, the scenario says")
    return found


StreamReader.read = read_once  # type: ignore[method-assign]
