"""The names that authors of handlers import; `flybridge` offers the same ones.

from flybridge import Context, Event, Handler, handles

@handles("im.message.receive_v1")
class Greet(Handler):
    async def handle(self, event: Event, context: Context) -> None: ...
"""

from flybridge.handlers.base import Context, Handler
from flybridge.handlers.batch import Batch, BatchContext
from flybridge.handlers.errors import Reject, Retry
from flybridge.handlers.event import Event
from flybridge.handlers.middleware import Middleware
from flybridge.handlers.registry import Registry, handles, use

__all__ = [
    "Batch",
    "BatchContext",
    "Context",
    "Event",
    "Handler",
    "Middleware",
    "Registry",
    "Reject",
    "Retry",
    "handles",
    "use",
]
