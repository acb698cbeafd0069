"""Similar events together, each with an end of its own. Seed: 批量处理."""

from collections.abc import Sequence

from flybridge.bridge.builder import Builder
from flybridge.handlers import Batch, BatchContext, Event, Handler
from flybridge.handlers.payloads.im import MessageReceived


class SaveMessages(Handler):
    event_types = "im.message.receive_v1"
    batch = Batch(size=100, wait=0.05)  # whichever comes first

    async def handle(
        self, events: Sequence[Event[MessageReceived]], context: BatchContext
    ) -> list[Exception | None]:
        """None for what was saved; an exception, and only that event is tried again."""
        print(f"saving {len(events)} at once")
        return [self.problem_of(event) for event in events]

    def problem_of(self, event: Event[MessageReceived]) -> Exception | None:
        return None if event.payload.message.chat_id else ValueError("no chat")


if __name__ == "__main__":
    Builder().add_handler(SaveMessages).build().run()
