"""A handler and a payload of your own. Seed: 创建自定义事件处理器, IFeishuEventHandler."""

from pydantic import BaseModel

from flybridge.bridge.builder import Builder
from flybridge.handlers import Context, Event, Handler


class CustomEvent(BaseModel):
    """What stands in the body of the event; one of another shape becomes a dead letter."""

    number: int
    customer: str = ""


class CustomEventHandler(Handler):
    event_types = "custom.event.example_v1"  # one, or a tuple of them
    timeout = 10.0  # seconds; then `handle` is cancelled, as by the seed's CancellationToken

    async def handle(self, event: Event[CustomEvent], context: Context) -> None:
        context.logger.info("custom_event.handled", number=event.payload.number)
        await self.process(event.payload)

    async def process(self, order: CustomEvent) -> None:
        """Your database, your APIs: raise, and the event is tried again, with backoff."""


if __name__ == "__main__":
    Builder().add_handler(CustomEventHandler).build().run()
