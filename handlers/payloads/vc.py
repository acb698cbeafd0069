"""Bodies of the domain `vc`: video meetings. Times are Unix seconds, as text."""

from __future__ import annotations

from flybridge.handlers.payloads.base import Items, Part, Payload, UserId


class Participant(Part):
    id: UserId = UserId()
    user_role: int | None = None
    """1 attendee, 2 host, 3 co-host."""
    user_type: int | None = None
    """1 Lark user, 2 room, 3 document, 6 telephone, 7 SIP."""


class SecuritySetting(Part):
    """Who may join; lists only what was set."""

    security_level: int | None = None
    group_ids: Items[str] = ()
    user_ids: Items[UserId] = ()
    room_ids: Items[str] = ()
    has_set_security_contacts_and_group: bool | None = None


class WebinarSetting(Part):
    webinar_type: int | None = None


class Meeting(Part):
    id: str = ""
    topic: str = ""
    meeting_no: str = ""
    meeting_source: int | None = None
    """1 calendar, 2 instant, 3 interview, 4 open platform, 100 other."""
    meeting_sub_type: int | None = None
    start_time: str = ""
    end_time: str = ""
    host_user: Participant = Participant()
    owner: Participant = Participant()
    calendar_event_id: str = ""
    security_setting: SecuritySetting = SecuritySetting()
    webinar_setting: WebinarSetting = WebinarSetting()


class MeetingChanged(Payload):
    """A meeting began or ended, or somebody joined."""

    meeting: Meeting = Meeting()
    operator: Participant = Participant()


class MeetingLeft(MeetingChanged):
    """Somebody left, or was removed."""

    leave_reason: int | None = None
    leave_user: Participant = Participant()


class RecordingReady(Payload):
    """The recording of a meeting can be watched."""

    meeting: Meeting = Meeting()
    url: str = ""
    duration: str = ""
    """Milliseconds."""


MODELS: dict[str, type[Payload]] = {
    "vc.meeting.meeting_started_v1": MeetingChanged,
    "vc.meeting.meeting_ended_v1": MeetingChanged,
    "vc.meeting.all_meeting_started_v1": MeetingChanged,
    "vc.meeting.all_meeting_ended_v1": MeetingChanged,
    "vc.meeting.join_meeting_v1": MeetingChanged,
    "vc.meeting.leave_meeting_v1": MeetingLeft,
    "vc.meeting.recording_ready_v1": RecordingReady,
}
