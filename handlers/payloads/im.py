"""Bodies of the domain `im`: what people write, read, take back, and who is in a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import Field

from handlers.payloads.base import Part, Payload, UserId


class Sender(Part):
    sender_id: UserId = UserId()
    sender_type: str = ""
    tenant_key: str = ""


class Mention(Part):
    key: str = ""
    """The placeholder in the text, e.g. `@_user_1`."""
    id: UserId = UserId()
    name: str = ""
    tenant_key: str = ""


class Message(Part):
    message_id: str = ""
    root_id: str = ""
    parent_id: str = ""
    thread_id: str = ""
    chat_id: str = ""
    chat_type: str = ""
    """`p2p` or `group`."""
    message_type: str = ""
    """`text`, `post`, `image`, `file`, `interactive`, …"""
    content: str = ""
    """JSON text whose shape depends on `message_type`."""
    mentions: tuple[Mention, ...] = ()
    create_time: str = ""
    update_time: str = ""
    user_agent: str = ""

    def parsed(self) -> Mapping[str, Any]:
        """`content` decoded; empty when it is no JSON object."""
        try:
            content = msgspec.json.decode(self.content)
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def text(self) -> str:
        """What a text message says, with placeholders for mentions; "" for other kinds."""
        text = self.parsed().get("text")
        return text if isinstance(text, str) and self.message_type == "text" else ""


class MessageReceived(Payload):
    sender: Sender = Sender()
    message: Message = Message()


class Reader(Part):
    reader_id: UserId = UserId()
    read_time: str = ""
    tenant_key: str = ""


class MessageRead(Payload):
    reader: Reader = Reader()
    message_id_list: tuple[str, ...] = ()


class MessageRecalled(Payload):
    message_id: str = ""
    chat_id: str = ""
    recall_time: str = ""
    recall_type: str = ""
    """`message_owner`, `group_owner`, `group_manager` or `enterprise_manager`."""


class ReactionType(Part):
    emoji_type: str = ""


class Reaction(Payload):
    message_id: str = ""
    reaction_type: ReactionType = ReactionType()
    operator_type: str = ""
    user_id: UserId = UserId()
    app_id: str = ""
    action_time: str = ""


class Member(Part):
    name: str = ""
    tenant_key: str = ""
    user_id: UserId = UserId()


class ChatChanged(Payload):
    """A bot came or went, or the chat was disbanded."""

    chat_id: str = ""
    operator_id: UserId = UserId()
    external: bool | None = None
    operator_tenant_key: str = ""
    name: str = ""
    i18n_names: dict[str, str | None] = Field(default_factory=dict)


class ChatMembersChanged(ChatChanged):
    """People came or went."""

    users: tuple[Member, ...] = ()


class ModeratorList(Part):
    added_member_list: tuple[Member, ...] = ()
    removed_member_list: tuple[Member, ...] = ()


class ChatSettings(Part):
    """One side of a change; only what changed is filled."""

    name: str = ""
    description: str = ""
    avatar: str = ""
    owner_id: UserId = UserId()
    group_message_type: str = ""
    add_member_permission: str = ""
    at_all_permission: str = ""
    edit_permission: str = ""
    share_card_permission: str = ""
    membership_approval: str = ""
    moderation_permission: str = ""
    join_message_visibility: str = ""
    leave_message_visibility: str = ""


class ChatUpdated(Payload):
    chat_id: str = ""
    operator_id: UserId = UserId()
    external: bool | None = None
    operator_tenant_key: str = ""
    after_change: ChatSettings = ChatSettings()
    before_change: ChatSettings = ChatSettings()
    moderator_list: ModeratorList = ModeratorList()


class BotChatEntered(Payload):
    chat_id: str = ""
    operator_id: UserId = UserId()
    last_message_id: str = ""
    last_message_create_time: str = ""


MODELS: dict[str, type[Payload]] = {
    "im.message.receive_v1": MessageReceived,
    "im.message.message_read_v1": MessageRead,
    "im.message.recalled_v1": MessageRecalled,
    "im.message.reaction.created_v1": Reaction,
    "im.message.reaction.deleted_v1": Reaction,
    "im.chat.member.user.added_v1": ChatMembersChanged,
    "im.chat.member.user.deleted_v1": ChatMembersChanged,
    "im.chat.member.user.withdrawn_v1": ChatMembersChanged,
    "im.chat.member.bot.added_v1": ChatChanged,
    "im.chat.member.bot.deleted_v1": ChatChanged,
    "im.chat.disbanded_v1": ChatChanged,
    "im.chat.updated_v1": ChatUpdated,
    "im.chat.access_event.bot_p2p_chat_entered_v1": BotChatEntered,
}
