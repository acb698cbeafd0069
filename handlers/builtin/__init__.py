"""Example handlers, one module per domain; each logs one line about an event.

They are registered when this package is loaded:
`FLYBRIDGE_HANDLERS=flybridge.handlers.builtin`. Events that nobody handles need no handler here:
`flybridge.handlers.default` is every registry's default.
"""

from flybridge.handlers.builtin.contact import UserCreated
from flybridge.handlers.builtin.im import (
    MessageRead,
    ReceiveMessage,
    UserAddedToGroup,
    UserRemovedFromGroup,
)
from flybridge.handlers.default import LogUnhandled

__all__ = [
    "LogUnhandled",
    "MessageRead",
    "ReceiveMessage",
    "UserAddedToGroup",
    "UserCreated",
    "UserRemovedFromGroup",
]
