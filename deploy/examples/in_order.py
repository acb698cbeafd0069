"""One chat's messages one at a time and in order, all chats at once, over all workers."""

import asyncio
import json

from flybridge.bridge.builder import Builder
from flybridge.handlers import Context, Event, Handler
from flybridge.handlers.payloads.im import MessageReceived


class Converse(Handler):
    event_types = "im.message.receive_v1"
    ordered_by = "body.message.chat_id"

    async def handle(self, event: Event[MessageReceived], context: Context) -> None:
        message = event.payload.message
        await asyncio.sleep(0.01)  # even so nothing overtakes within a chat
        print(f"{message.chat_id} {json.loads(message.content)['text']}")


if __name__ == "__main__":
    Builder().add_handler(Converse).build().run()
