"""What an author of handlers needs, and nothing else.

from handlers import Context, Event, Handler, handles

@handles("im.message.receive_v1")
class Greet(Handler):
    async def handle(self, event: Event, context: Context) -> None: ...
"""

from handlers.base import Context, Handler
from handlers.errors import Reject, Retry
from handlers.event import Event
from handlers.registry import Registry, handles

__all__ = ["Context", "Event", "Handler", "Registry", "Reject", "Retry", "handles"]
