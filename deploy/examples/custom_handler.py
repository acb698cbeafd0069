"""A handler of your own. Seed: 创建自定义事件处理器, IFeishuEventHandler."""

from bridge.builder import Builder
from handlers import Context, Event, Handler


class CustomEventHandler(Handler):
    event_types = "custom.event.example_v1"  # one, or a tuple of them
    timeout = 10.0  # seconds; then `handle` is cancelled, as by the seed's CancellationToken

    async def handle(self, event: Event, context: Context) -> None:
        context.logger.info("custom_event.handled", event_type=event.type)
        await self.process(event)

    async def process(self, event: Event) -> None:
        """Your database, your APIs: raise, and the event is tried again, with backoff."""


if __name__ == "__main__":
    Builder().add_handler(CustomEventHandler).build().run()
