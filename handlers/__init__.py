"""What an author of handlers needs, and nothing else.

from handlers import Context, Event, Handler, handles

@handles("im.message.receive_v1")
class Greet(Handler):
    async def handle(self, event: Event, context: Context) -> None: ...
"""

from handlers.base import Context, Handler
from handlers.batch import Batch, BatchContext
from handlers.errors import Reject, Retry
from handlers.event import Event
from handlers.middleware import Middleware
from handlers.registry import Registry, handles, use

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
