"""Bodies of the domain `meeting_room`: bookings of rooms that another system manages (v1)."""

from __future__ import annotations

from flybridge.handlers.payloads.base import Items, Part, Payload, PayloadV1


class Moment(Part):
    time_stamp: str = ""
    """Unix seconds."""


class Room(Part):
    open_id: str = ""


class Organizer(Part):
    open_id: str = ""
    user_id: str = ""


class RoomBookingChanged(PayloadV1):
    """A calendar event with such a room was made, changed or deleted."""

    event_id: str = ""
    """The calendar event's, not this event's."""
    event_time: str = ""
    uid: str = ""
    original_time: int | None = None
    """Time of the repetition that it is; 0 for an event that does not repeat."""
    start: Moment = Moment()
    end: Moment = Moment()
    meeting_rooms: Items[Room] = ()
    organizer: Organizer = Organizer()


MODELS: dict[str, type[Payload]] = {
    "third_party_meeting_room_event_created": RoomBookingChanged,
    "third_party_meeting_room_event_updated": RoomBookingChanged,
    "third_party_meeting_room_event_deleted": RoomBookingChanged,
}
