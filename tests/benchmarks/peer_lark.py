"""The peer: the official client with a no-op handler.

Runs in `.venv-interop`: `python peer_lark.py URL`.
"""

from __future__ import annotations

import sys

import lark_oapi as lark


def nothing(event: lark.im.v1.P2ImMessageReceiveV1) -> None:
    """The same no-op; it stores nothing."""


if __name__ == "__main__":
    builder = lark.EventDispatcherHandler.builder("", "")
    handler = builder.register_p2_im_message_receive_v1(nothing).build()
    lark.ws.Client(
        "cli_bench",
        "secret",
        event_handler=handler,
        domain=sys.argv[1],
        log_level=lark.LogLevel.ERROR,
    ).start()
