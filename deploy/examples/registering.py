"""Every way to register a handler. Seed: 注册自定义处理器, 依赖注入注册."""

from collections import Counter
from functools import partial

from flybridge.bridge.builder import Builder
from flybridge.handlers import Context, Event, Handler

MESSAGE = "im.message.receive_v1"


class CustomEventHandler(Handler):
    event_types = MESSAGE

    async def handle(self, event: Event, context: Context) -> None:
        print(f"by class: {event.id}")


class CountingHandler(Handler):
    """What it needs comes from outside, and so does what a test puts in its place."""

    event_types = MESSAGE

    def __init__(self, counts: Counter[str], said: str) -> None:
        self.counts = counts
        self.said = said

    async def handle(self, event: Event, context: Context) -> None:
        self.counts[event.type] += 1
        print(f"{self.said}: {event.id}")


async def by_function(event: Event, context: Context) -> None:
    print(f"by function: {event.id}")


def by_factory() -> CountingHandler:
    """Called once per process, at its first event: the place to open connections."""
    return CountingHandler(counts=Counter(), said="by factory")


if __name__ == "__main__":
    counts: Counter[str] = Counter()  # your container's services
    (
        Builder()
        .use_multi_handler()
        .add_handler(CustomEventHandler)
        .add_handler(by_function, MESSAGE, timeout=5)
        .add_handler(by_factory)
        .add_handler(partial(CountingHandler, counts, "by injection"), name="injected")
        .add_handler(CountingHandler(counts, "by instance"), name="instance")
        .build()
        .run()
    )
