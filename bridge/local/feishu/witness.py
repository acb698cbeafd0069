"""Handlers of the demo: one that writes down every event, one that fails at first.

They write to the file that DEMO_DEEDS names, so that the demo can count what was handled without
asking Redis. Not for production.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from flybridge.handlers import Context, Event, handles


@handles("*", name="Witness")
def witness(event: Event, context: Context) -> None:
    """Write down that the event was handled."""
    _note("handled", event, context)


@handles("im.message.reaction.created_v1", name="Flaky", backoff=0.2)
def flaky(event: Event, context: Context) -> None:
    """Fail in the first attempt, as a service that is down for a moment makes handlers fail."""
    if context.attempt == 1:
        _note("failed", event, context)
        raise ConnectionError("the service behind this handler was down")
    _note("recovered", event, context)


def _note(deed: str, event: Event, context: Context) -> None:
    line = {"deed": deed, "event_id": event.id, "type": event.type, "attempt": context.attempt}
    with Path(os.environ["DEMO_DEEDS"]).open("a") as deeds:
        deeds.write(json.dumps(line) + "\n")
