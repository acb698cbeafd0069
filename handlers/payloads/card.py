"""Bodies of the domain `card`: what people do with interactive cards."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from flybridge.handlers.payloads.base import Items, Part, Payload


class Operator(Part):
    """Who acted. Unlike elsewhere, the ids are not inside an object of their own."""

    tenant_key: str = ""
    open_id: str = ""
    union_id: str = ""
    user_id: str = ""


class Action(Part):
    value: Any = None
    """What the card's author attached: an object or a text."""
    tag: str = ""
    """`button`, `select_static`, …"""
    name: str = ""
    timezone: str = ""
    form_value: dict[str, Any] = Field(default_factory=dict)
    """The form's inputs by name: a text, a list of texts, …"""
    input_value: str = ""
    option: str = ""
    options: Items[str] = ()
    checked: bool | None = None


class Context(Part):
    """Where it happened."""

    url: str = ""
    preview_token: str = ""
    open_message_id: str = ""
    open_chat_id: str = ""


class CardAction(Payload):
    """Somebody clicked, chose or wrote in a card."""

    operator: Operator = Operator()
    token: str = ""
    """Updates the card, for 30 minutes; a secret."""
    action: Action = Action()
    host: str = ""
    """`im_message`, `im_top_notice`, …"""
    delivery_type: str = ""
    context: Context = Context()


MODELS: dict[str, type[Payload]] = {"card.action.trigger": CardAction}
