"""Bodies of the domain `im`: what people write, read, take back, and who is in a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from flybridge.handlers.envelope.lenient_json import decode
from flybridge.handlers.payloads.base import Items, Part, Payload, PayloadV1, Texts, UserId


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
    mentioned_type: str = ""


class AgentContext(Part):
    active_chat_id: str = ""


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
    mentions: Items[Mention] = ()
    create_time: str = ""
    """Unix ms."""
    update_time: str = ""
    user_agent: str = ""
    lark_agent_context: AgentContext = AgentContext()

    def parsed(self) -> Mapping[str, Any]:
        """`content` decoded; empty if it is not a JSON object."""
        try:
            content = decode(self.content)
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def text(self) -> str:
        """The text of a text message, with placeholders for mentions; "" for other kinds."""
        text = self.parsed().get("text")
        return text if isinstance(text, str) and self.message_type == "text" else ""


class MessageReceived(Payload):
    """Somebody wrote to the bot, or in a chat it is in."""

    sender: Sender = Sender()
    message: Message = Message()


class Reader(Part):
    reader_id: UserId = UserId()
    read_time: str = ""
    """Unix ms."""
    tenant_key: str = ""


class MessageRead(Payload):
    """Somebody read what the bot wrote to them alone."""

    reader: Reader = Reader()
    message_id_list: Items[str] = ()


class MessageRecalled(Payload):
    """A message was taken back."""

    message_id: str = ""
    chat_id: str = ""
    recall_time: str = ""
    """Unix ms."""
    recall_type: str = ""
    """`message_owner`, `group_owner`, `group_manager` or `enterprise_manager`."""


class ReactionType(Part):
    emoji_type: str = ""


class Reaction(Payload):
    """Somebody put an emoji to a message, or took it away."""

    message_id: str = ""
    reaction_type: ReactionType = ReactionType()
    operator_type: str = ""
    user_id: UserId = UserId()
    app_id: str = ""
    action_time: str = ""
    """Unix ms."""


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
    i18n_names: Texts = Field(default_factory=dict)


class ChatMembersChanged(ChatChanged):
    """People came or went."""

    users: Items[Member] = ()


class ModeratorList(Part):
    added_member_list: Items[Member] = ()
    removed_member_list: Items[Member] = ()


class RestrictedMode(Part):
    """Who may copy out of the chat: `all_members` or `not_anyone`."""

    status: bool | None = None
    screenshot_has_permission_setting: str = ""
    download_has_permission_setting: str = ""
    message_has_permission_setting: str = ""


class ChatSettings(Part):
    """The settings before or after a change; only those that changed are filled."""

    name: str = ""
    i18n_names: Texts = Field(default_factory=dict)
    description: str = ""
    avatar: str = ""
    labels: Items[str] = ()
    owner_id: UserId = UserId()
    group_message_type: str = ""
    """`chat` or `thread`."""
    add_member_permission: str = ""
    at_all_permission: str = ""
    edit_permission: str = ""
    share_card_permission: str = ""
    membership_approval: str = ""
    moderation_permission: str = ""
    join_message_visibility: str = ""
    leave_message_visibility: str = ""
    restricted_mode_setting: RestrictedMode = RestrictedMode()


class ChatUpdated(Payload):
    """Settings of a chat were changed, or who may write in it."""

    chat_id: str = ""
    operator_id: UserId = UserId()
    external: bool | None = None
    operator_tenant_key: str = ""
    after_change: ChatSettings = ChatSettings()
    before_change: ChatSettings = ChatSettings()
    moderator_list: ModeratorList = ModeratorList()


class BotChatEntered(Payload):
    """Somebody opened the chat with the bot."""

    chat_id: str = ""
    operator_id: UserId = UserId()
    last_message_id: str = ""
    last_message_create_time: str = ""
    """Unix ms."""


class ChatOperator(Part):
    open_id: str = ""
    user_id: str = ""


class ChatUser(ChatOperator):
    name: str = ""


class P2pChatCreated(PayloadV1):
    """v1; the first chat of a person and the bot."""

    chat_id: str = ""
    operator: ChatOperator = ChatOperator()
    user: ChatUser = ChatUser()


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
    "p2p_chat_create": P2pChatCreated,
}
