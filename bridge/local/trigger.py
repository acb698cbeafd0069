"""`flybridge trigger`: pushes an event through a local Feishu, and waits for its ack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flybridge.bridge.errors import BridgeError
from flybridge.bridge.local.feishu.control import LocalControl

LISTED = 20
"""Events that get lines of their own; more are summed up."""

_LOOK = 0.02  # seconds between two looks at an event

Say = Callable[[str], object]


class NotAcked(BridgeError):
    """An event was pushed, and no bridge acked it."""


def push(
    control: LocalControl, envelope: Mapping[str, Any], *, count: int, timeout: float, say: Say
) -> None:
    """Push copies of an event and wait until all are acked; more than one get fresh ids.

    Raises:
        NotAcked: `timeout` seconds were not enough, or the answer was a refusal.
        LocalFeishuRefused: nothing answers at the URL.
    """
    if count > LISTED:
        _push_many(control, envelope, count, timeout, say)
        return
    began = time.monotonic()
    ids = control.push(envelope, count=count)
    for event_id in ids:
        say(f"--> {event_type(envelope)} [{event_id}]")
    for event_id in ids:
        attempt = _answered(control, event_id, began, timeout)
        took = (attempt["answered"] - attempt["time"]) * 1000
        say(f"<-- ack {attempt['code']} in {took:.0f} ms [{event_id}]")
        if attempt["code"] != 200:
            raise NotAcked("The bridge could not keep the event; see its log.")


def push_again(
    control: LocalControl, envelope: Mapping[str, Any], *, count: int, timeout: float, say: Say
) -> None:
    """Push one event under the same id time after time, as Feishu does when an ack is lost.

    Raises:
        NotAcked, LocalFeishuRefused: as `push`.
    """
    for _ in range(count):
        push(control, envelope, count=1, timeout=timeout, say=say)


def overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """`a.b=c` as path and value; the value is JSON where it reads as JSON, else plain text.

    Raises:
        ValueError: an assignment without a path or without `=`.
    """
    found = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not path or not equals:
            raise ValueError(f"{assignment!r} assigns nothing; write it like message.content=hello")
        found[path] = _value(text)
    return found


def event_type(envelope: Mapping[str, Any]) -> str:
    """Of a v2 or v1 envelope; `?` where it has none."""
    v2, v1 = envelope.get("header"), envelope.get("event")
    if isinstance(v2, Mapping):
        return str(v2.get("event_type", "?"))
    return str(v1.get("type", "?")) if isinstance(v1, Mapping) else "?"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _push_many(
    control: LocalControl, envelope: Mapping[str, Any], count: int, timeout: float, say: Say
) -> None:
    began = time.monotonic()
    ids = control.push(envelope, count=count)
    say(f"--> {event_type(envelope)} x {count}")
    try:
        control.wait_acked(ids, timeout)
    except TimeoutError as late:
        raise _not_acked(control, str(late)) from None
    say(f"<-- {count} acked in {time.monotonic() - began:.2f} s")


def _answered(
    control: LocalControl, event_id: str, since: float, timeout: float
) -> Mapping[str, Any]:
    """The first attempt after `since` that was answered; the event may have had others before."""
    while time.monotonic() < since + timeout:
        for attempt in control.event(event_id)["attempts"]:
            if attempt["time"] >= since and attempt["answered"] is not None:
                return dict(attempt)
        time.sleep(_LOOK)
    raise _not_acked(control, f"The event is not acked after {timeout:g} s")


def _not_acked(control: LocalControl, fact: str) -> NotAcked:
    if control.status()["connections"]:
        return NotAcked(f"{fact}; a bridge is connected, see its log.")
    return NotAcked(
        f"{fact}; no bridge is connected, start one with FLYBRIDGE_DOMAIN={control.url}"
    )
