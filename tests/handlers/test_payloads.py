from __future__ import annotations

from typing import Any

import pytest

from handlers.errors import EventInvalid
from handlers.payloads import Payload, parse, payload_model
from handlers.types import ALIASES, KNOWN_TYPES

UID = {"union_id": "on_a1", "user_id": "u01", "open_id": "ou_a1"}
MESSAGE = {
    "sender": {"sender_id": UID, "sender_type": "user", "tenant_key": "tk1"},
    "message": {
        "message_id": "om_m1",
        "chat_id": "oc_c1",
        "chat_type": "group",
        "message_type": "text",
        "content": '{"text":"@_user_1 deploy"}',
        "mentions": [{"key": "@_user_1", "id": UID, "name": "Bot", "tenant_key": "tk1"}],
    },
}
MEETING = {
    "meeting": {"id": "69", "topic": "standup", "meeting_source": 1, "owner": {"id": UID}},
    "operator": {"id": UID, "user_role": 1, "user_type": 1},
}
CHAT = {"chat_id": "oc_c1", "operator_id": UID, "external": False, "i18n_names": {"zh_cn": "运维"}}

SAMPLES: dict[str, dict[str, Any]] = {
    "im.message.receive_v1": MESSAGE,
    "im.message.message_read_v1": {
        "reader": {"reader_id": UID, "read_time": "1763800005000"},
        "message_id_list": ["om_m1"],
    },
    "im.message.recalled_v1": {"message_id": "om_m1", "recall_type": "message_owner"},
    "im.message.reaction.created_v1": {"reaction_type": {"emoji_type": "SMILE"}, "user_id": UID},
    "im.message.reaction.deleted_v1": {"reaction_type": {"emoji_type": "SMILE"}, "user_id": UID},
    "im.chat.member.user.added_v1": {**CHAT, "users": [{"name": "Li", "user_id": UID}]},
    "im.chat.member.user.deleted_v1": {**CHAT, "users": [{"name": "Li", "user_id": UID}]},
    "im.chat.member.user.withdrawn_v1": {**CHAT, "users": [{"name": "Li", "user_id": UID}]},
    "im.chat.member.bot.added_v1": CHAT,
    "im.chat.member.bot.deleted_v1": CHAT,
    "im.chat.disbanded_v1": CHAT,
    "im.chat.updated_v1": {
        "chat_id": "oc_c1",
        "after_change": {"name": "ops-2", "owner_id": UID},
        "before_change": {"name": "ops"},
        "moderator_list": {"added_member_list": [{"user_id": UID}], "removed_member_list": []},
    },
    "im.chat.access_event.bot_p2p_chat_entered_v1": {"chat_id": "oc_c1", "operator_id": UID},
    "contact.user.created_v3": {
        "object": {
            "open_id": "ou_n1",
            "gender": 1,
            "status": {"is_frozen": False},
            "orders": [{"department_id": "od-1", "user_order": 100, "is_primary_dept": True}],
            "custom_attrs": [{"type": "TEXT", "value": {"text": "x"}}],
        }
    },
    "contact.user.updated_v3": {"object": {"open_id": "ou_1"}, "old_object": {"open_id": "ou_1"}},
    "contact.user.deleted_v3": {"object": {"open_id": "ou_1"}, "old_object": {"open_id": "ou_1"}},
    "contact.department.created_v3": {
        "object": {"name": "平台部", "order": 100, "leaders": [{"leaderType": 1, "leaderID": "ou"}]}
    },
    "contact.department.updated_v3": {"object": {"order": "100"}, "old_object": {"order": 99}},
    "contact.department.deleted_v3": {
        "object": {},
        "old_object": {"status": {"is_deleted": True}, "open_department_id": "od-1"},
    },
    "approval_instance": {"status": "APPROVED", "operate_time": "1763800000003", "uuid": "x"},
    "approval_task": {"status": "DONE", "task_id": "t1", "open_id": "ou_1"},
    "approval.approval.updated_v4": {"object": {"approval_id": "1", "widget_group_type": 0}},
    "approval.instance.status_changed_v4": {"status": "APPROVED", "start_user": UID},
    "approval.task.status_changed_v4": {"status": "DONE", "assigned_user": UID},
    "calendar.calendar.event.changed_v4": {
        "calendar_id": "feishu.cn_abc",
        "user_id_list": [UID],
        "rsvp_infos": [{"from_user_id": UID, "rsvp_status": "accept"}],
    },
    "calendar.calendar.changed_v4": {"user_id_list": [UID]},
    "vc.meeting.meeting_started_v1": MEETING,
    "vc.meeting.meeting_ended_v1": MEETING,
    "vc.meeting.all_meeting_started_v1": MEETING,
    "vc.meeting.all_meeting_ended_v1": MEETING,
    "vc.meeting.join_meeting_v1": MEETING,
    "vc.meeting.leave_meeting_v1": MEETING,
    "vc.meeting.recording_ready_v1": {"meeting": {"id": "69"}, "url": "u", "duration": "30000"},
    "application.bot.menu_v6": {"operator": {"operator_id": UID}, "timestamp": 1763800000},
    "card.action.trigger": {
        "operator": UID,
        "token": "c-tok",
        "action": {"value": {"op": "approve"}, "tag": "button", "form_value": {"who": ["ou"]}},
        "context": {"open_message_id": "om_m1"},
    },
}


@pytest.mark.parametrize("event_type", SAMPLES)
def test_every_sample_reads_as_the_model_of_its_type(event_type: str) -> None:
    payload = parse(event_type, SAMPLES[event_type])
    assert type(payload) is payload_model(event_type) is not Payload
    assert payload.model_fields_set >= set(SAMPLES[event_type])


@pytest.mark.parametrize("event_type", SAMPLES)
def test_an_empty_body_is_readable_without_a_none_on_the_way(event_type: str) -> None:
    payload = parse(event_type, {})
    nulls = dict.fromkeys(type(payload).model_fields)
    assert parse(event_type, nulls).model_dump() == payload.model_dump()


def test_every_type_with_a_model_is_a_known_one() -> None:
    assert set(SAMPLES) <= KNOWN_TYPES
    for alias, real in ALIASES.items():
        assert payload_model(alias) is payload_model(real)


def test_a_type_without_a_model_reads_as_its_fields() -> None:
    payload: Any = parse("custom.event.example_v1", {"order": 7, "nested": {"a": None}})
    assert (payload.order, payload.nested) == (7, {"a": None})


def test_fields_unknown_to_the_model_are_kept() -> None:
    payload: Any = parse("im.message.receive_v1", {"message": {"lark_agent_context": {"x": 1}}})
    assert payload.message.lark_agent_context == {"x": 1}


def test_numbers_and_texts_stand_for_each_other() -> None:
    reverted: Any = parse("approval_instance", {"operate_time": 1763800000003})
    assert reverted.operate_time == "1763800000003"
    department: Any = parse(
        "contact.department.updated_v3", SAMPLES["contact.department.updated_v3"]
    )
    assert (department.object.order, department.old_object.order) == (100, 99)
    user: Any = parse("contact.user.created_v3", {"object": {"gender": ""}})
    assert user.object.gender is None


def test_a_value_of_another_shape_is_named_but_not_shown() -> None:
    with pytest.raises(EventInvalid) as refusal:
        parse("im.message.receive_v1", {"message": {"content": {"text": "private"}}})
    assert "`event.message.content`" in str(refusal.value)
    assert "private" not in str(refusal.value)
    assert "private" not in str(refusal.value.__cause__)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"message_type": "text", "content": '{"text":"hi"}'}, "hi"),
        ({"message_type": "post", "content": '{"title":"hi"}'}, ""),
        ({"message_type": "text", "content": '{"text":7}'}, ""),
        ({"message_type": "text", "content": "not json"}, ""),
        ({"message_type": "text", "content": "[" * 100_000}, ""),
        ({"message_type": "text", "content": "[]"}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_the_text_of_a_message(message: dict[str, Any], text: str) -> None:
    payload: Any = parse("im.message.receive_v1", {"message": message})
    assert payload.message.text == text
