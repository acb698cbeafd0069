"""Bodies of the domain `vc`: video meetings. Times are Unix seconds, as text."""

from __future__ import annotations

from handlers.payloads.base import Number, Part, Payload, UserId


class Participant(Part):
    id: UserId = UserId()
    user_role: Number = None
    """1 attendee, 2 host, 3 co-host."""
    user_type: Number = None
    """1 Lark user, 2 room, 3 document, 6 telephone, 7 SIP."""


class Meeting(Part):
    id: str = ""
    topic: str = ""
    meeting_no: str = ""
    meeting_source: Number = None
    """1 calendar, 2 instant, 3 interview, 4 open platform, 100 other."""
    meeting_sub_type: Number = None
    start_time: str = ""
    end_time: str = ""
    host_user: Participant = Participant()
    owner: Participant = Participant()
    calendar_event_id: str = ""


class MeetingChanged(Payload):
    """A meeting began or ended, or somebody joined or left."""

    meeting: Meeting = Meeting()
    operator: Participant = Participant()


class RecordingReady(Payload):
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
    "vc.meeting.leave_meeting_v1": MeetingChanged,
    "vc.meeting.recording_ready_v1": RecordingReady,
}
