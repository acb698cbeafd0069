"""Middleware: what shall happen around every handler, here a stopwatch. Seed: 性能指标."""

import time
from typing import Any

from flybridge.bridge.builder import Builder
from flybridge.handlers import Context, Event, Middleware
from flybridge.handlers.builtin import MessageRead, ReceiveMessage


class Stopwatch(Middleware):
    def __init__(self) -> None:
        self.began: dict[tuple[str, str], float] = {}

    def before(self, event: Event, context: Context) -> None:
        self.began[event.id, context.handler] = time.perf_counter()

    def after(self, event: Event, context: Context, result: Any) -> None:
        self.log(event, context, "succeeded")

    def error(self, event: Event, context: Context, error: BaseException) -> None:
        self.log(event, context, f"failed: {error!r}")

    def log(self, event: Event, context: Context, how: str) -> None:
        took = time.perf_counter() - self.began.pop((event.id, context.handler))
        print(f"{context.handler} {how} in {took * 1000:.1f} ms")


if __name__ == "__main__":
    (
        Builder()
        .use_multi_handler()
        .use(Stopwatch())
        .add_handler(ReceiveMessage)
        .add_handler(MessageRead)
        .build()
        .run()
    )
