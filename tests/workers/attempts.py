"""Attempts at one event, as a pool makes them, from plain arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flybridge.handlers import Registry
from flybridge.workers.claim.outcomes import Outcome
from flybridge.workers.run import batch_runner, runner
from flybridge.workers.run.calls import Around
from flybridge.workers.run.items import Item


def run(
    registry: Registry,
    envelope: bytes,
    attempt: int,
    marks: Mapping[str, str],
    *,
    around: Around | None = None,
    parallel: bool = True,
    cases: runner.Cases | None = None,
    **facts: Any,
) -> Outcome:
    """One attempt in this thread; `facts` are of an `Item`."""
    item = _item(envelope, attempt, marks, **facts)
    return runner.run(registry, item, lambda items: around, parallel=parallel, cases=cases)


async def run_async(
    registry: Registry,
    envelope: bytes,
    attempt: int,
    marks: Mapping[str, str],
    *,
    around: Around | None = None,
    parallel: bool = True,
    **facts: Any,
) -> Outcome:
    """The same on the running loop."""
    item = _item(envelope, attempt, marks, **facts)
    (outcome,) = await batch_runner.run_async(
        registry, [item], lambda items: around, parallel=parallel
    )
    return outcome


def _item(envelope: bytes, attempt: int, marks: Mapping[str, str], **facts: Any) -> Item:
    given = {"event_id": "", "event_type": "", "born": None, **facts}
    return Item(
        envelope=envelope, attempt=attempt, marks=marks, traceparent="", tracestate="", **given
    )
