"""A bridge between Feishu/Lark events and a Celery worker pool: what its users import.

from flybridge import Context, Event, Handler, handles

@handles("im.message.receive_v1")
class Greet(Handler):
    async def handle(self, event: Event, context: Context) -> None: ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flybridge.bridge.builder import Builder
    from flybridge.bridge.config.settings import BridgeSettings
    from flybridge.bridge.manager import ConnectionManager
    from flybridge.bridge.service import Service
    from flybridge.handlers import (
        Batch,
        BatchContext,
        Context,
        Event,
        Handler,
        Middleware,
        Registry,
        Reject,
        Retry,
        handles,
        use,
    )

__all__ = [
    "Batch",
    "BatchContext",
    "BridgeSettings",
    "Builder",
    "ConnectionManager",
    "Context",
    "Event",
    "Handler",
    "Middleware",
    "Registry",
    "Reject",
    "Retry",
    "Service",
    "handles",
    "use",
]

_BRIDGE = {
    "BridgeSettings": "flybridge.bridge.config.settings",
    "Builder": "flybridge.bridge.builder",
    "ConnectionManager": "flybridge.bridge.manager",
    "Service": "flybridge.bridge.service",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: a module of handlers needs no bridge."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_BRIDGE.get(name, "flybridge.handlers")), name)
    globals()[name] = value
    return value
