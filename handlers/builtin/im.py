"""Handlers for chats and messages. They log ids and numbers, never names or texts."""

from __future__ import annotations

from flybridge.handlers import Context, Event, Handler, handles
from flybridge.handlers.payloads import im


@handles("im.message.receive_v1")
class ReceiveMessage(Handler):
    """Somebody wrote to the bot, or in a chat it is in."""

    def handle(self, event: Event[im.MessageReceived], context: Context) -> None:
        payload = event.payload
        context.logger.info(
            "message.received",
            message_id=payload.message.message_id,
            message_type=payload.message.message_type,
            chat_id=payload.message.chat_id,
            chat_type=payload.message.chat_type,
            mentions=len(payload.message.mentions),
        )


@handles("im.message.message_read_v1")
class MessageRead(Handler):
    """Somebody read what the bot wrote to them."""

    def handle(self, event: Event[im.MessageRead], context: Context) -> None:
        payload = event.payload
        context.logger.info("message.read", message_ids=payload.message_id_list)


@handles("im.chat.member.user.added_v1")
class UserAddedToGroup(Handler):
    """People came into a group that the bot is in."""

    def handle(self, event: Event[im.ChatMembersChanged], context: Context) -> None:
        payload = event.payload
        context.logger.info(
            "chat_members.added", chat_id=payload.chat_id, members=len(payload.users)
        )


@handles("im.chat.member.user.deleted_v1")
class UserRemovedFromGroup(Handler):
    """People left a group that the bot is in, or were removed."""

    def handle(self, event: Event[im.ChatMembersChanged], context: Context) -> None:
        payload = event.payload
        context.logger.info(
            "chat_members.removed", chat_id=payload.chat_id, members=len(payload.users)
        )
