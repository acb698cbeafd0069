"""Once per message, although Feishu may push one under several event ids.

Seed: IdempotentFeishuEventHandler, which its package has and its document does not mention.
"""

from flybridge.bridge.builder import Builder
from flybridge.handlers import Context, Event, Handler
from flybridge.handlers.payloads.im import MessageReceived


class Charge(Handler):
    event_types = "im.message.receive_v1"
    dedup_by = "body.message.message_id"

    async def handle(self, event: Event[MessageReceived], context: Context) -> None:
        print(f"charged for {event.payload.message.message_id}")


if __name__ == "__main__":
    Builder().add_handler(Charge).build().run()
