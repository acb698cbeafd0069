"""Bodies of the domain `application`: the bot's menu."""

from __future__ import annotations

from flybridge.handlers.payloads.base import Part, Payload, UserId


class MenuOperator(Part):
    operator_name: str = ""
    operator_id: UserId = UserId()


class BotMenu(Payload):
    """Somebody chose an entry of the bot's menu."""

    operator: MenuOperator = MenuOperator()
    event_key: str = ""
    """What the menu's author called the entry."""
    timestamp: str = ""
    """Unix seconds; an integer in some versions, always text here."""


MODELS: dict[str, type[Payload]] = {"application.bot.menu_v6": BotMenu}
