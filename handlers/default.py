"""The default handler of every registry: logs event types that no handler is registered for."""

from __future__ import annotations

import re

from flybridge.handlers.base import Context, Handler
from flybridge.handlers.event import Event
from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)

_MAX_TYPES = 512
_TYPE = re.compile(r"[A-Za-z0-9_.]{1,128}")
_VERSION = re.compile(r"_?v\d+$", re.IGNORECASE)

_STUB = """\
from flybridge.handlers import Context, Event, Handler, handles


@handles("{event_type}")
class {name}(Handler):
    async def handle(self, event: Event, context: Context) -> None:
        context.logger.info("event.handled")
"""


class LogUnhandled(Handler):
    """Logs the source code of a handler for each unhandled type, once per process."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def handle(self, event: Event, context: Context) -> None:
        # Bounded, because a sender can invent any number of types.
        if event.type in self._seen or len(self._seen) >= _MAX_TYPES:
            return
        self._seen.add(event.type)
        if _TYPE.fullmatch(event.type):
            log.warning("event.unhandled", event_type=event.type, suggestion=stub(event.type))
        else:
            log.warning("event.unhandled", event_type=event.type[:128])


def stub(event_type: str) -> str:
    """Source code of a handler for the type: `vc.room.created_v1` gives class `RoomCreated`."""
    words = re.split(r"[._]+", _VERSION.sub("", event_type))
    words = words[1:] if "." in event_type else words
    name = "".join(word[:1].upper() + word[1:] for word in words)
    return _STUB.format(event_type=event_type, name=name if name.isidentifier() else "Unnamed")
