"""Bodies of the domain `calendar`. They tell that something changed, but not its new value."""

from __future__ import annotations

from flybridge.handlers.payloads.base import Items, Part, Payload, UserId


class RsvpInfo(Part):
    from_user_id: UserId = UserId()
    rsvp_status: str = ""
    """`accept`, `decline` or `tentative`."""


class CalendarEventChanged(Payload):
    """Feishu merges the changes of one calendar event within 3 s."""

    calendar_id: str = ""
    user_id_list: Items[UserId] = ()
    """Whose calendar it is."""
    calendar_event_id: str = ""
    change_type: str = ""
    """`create`, `update`, `delete` or `rsvp`."""
    rsvp_infos: Items[RsvpInfo] = ()


class CalendarChanged(Payload):
    """The list of somebody's calendars changed."""

    user_id_list: Items[UserId] = ()


MODELS: dict[str, type[Payload]] = {
    "calendar.calendar.event.changed_v4": CalendarEventChanged,
    "calendar.calendar.changed_v4": CalendarChanged,
}
