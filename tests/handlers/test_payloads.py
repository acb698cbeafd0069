from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from flybridge.handlers import Event
from flybridge.handlers.payloads import Payload, parse, payload_model, tell_unexpected
from flybridge.handlers.payloads.base import Part
from flybridge.handlers.samples import sample, sample_types
from flybridge.handlers.types import ALIASES, KNOWN_TYPES

Path = tuple[str | int, ...]

MODELLED = tuple(name for name in sample_types() if payload_model(name) is not Payload)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
ASKED_FOR = {
    "im.message.receive_v1",
    "im.message.message_read_v1",
    "im.message.recalled_v1",
    "im.message.reaction.created_v1",
    "im.message.reaction.deleted_v1",
    "im.chat.updated_v1",
    "im.chat.disbanded_v1",
    "im.chat.member.user.added_v1",
    "im.chat.member.user.deleted_v1",
    "im.chat.member.user.withdrawn_v1",
    "im.chat.member.bot.added_v1",
    "im.chat.member.bot.deleted_v1",
    "contact.user.created_v3",
    "contact.user.updated_v3",
    "contact.user.deleted_v3",
    "contact.department.created_v3",
    "contact.department.updated_v3",
    "contact.department.deleted_v3",
    "contact.scope.updated_v3",
    "approval_instance",
    "approval_task",
    "approval_cc",
    "approval.approval.updated_v4",
    "approval.instance.status_changed_v4",
    "approval.task.status_changed_v4",
    "calendar.calendar.event.changed_v4",
    "calendar.calendar.changed_v4",
    "vc.meeting.meeting_started_v1",
    "vc.meeting.meeting_ended_v1",
    "vc.meeting.all_meeting_started_v1",
    "vc.meeting.all_meeting_ended_v1",
    "application.bot.menu_v6",
    "card.action.trigger",
    "url.preview.get",
    "drive.file.edit_v1",
    "drive.file.bitable_record_changed_v1",
}


def body(event_type: str) -> dict[str, Any]:
    event: dict[str, Any] = sample(event_type)["event"]
    return event


def unmodelled(part: object, path: str = "event") -> list[str]:
    """Paths of the fields that the models do not name."""
    if isinstance(part, tuple):
        return [name for item in part for name in unmodelled(item, f"{path}[]")]
    if not isinstance(part, Part):
        return []
    fields = {name: getattr(part, name) for name in type(part).model_fields}
    below = [name for key, value in fields.items() for name in unmodelled(value, f"{path}.{key}")]
    return [f"{path}.{name}" for name in part.model_extra or {}] + below


def absent_parts(part: Part) -> list[str]:
    """Names of the fields that should hold an object and do not."""
    fields = type(part).model_fields.items()
    objects = {name: getattr(part, name) for name, field in fields if is_part(field.annotation)}
    absent = [name for name, value in objects.items() if not isinstance(value, Part)]
    present = (value for value in objects.values() if isinstance(value, Part))
    return absent + [name for value in present for name in absent_parts(value)]


def is_part(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Part)


def paths(value: Any, path: Path = ()) -> list[Path]:
    """Every field and item of a body, however deep."""
    pairs: Any = value.items() if isinstance(value, dict) else ()
    pairs = enumerate(value) if isinstance(value, list) else pairs
    return [found for key, item in pairs for found in ((*path, key), *paths(item, (*path, key)))]


def dropped(parent: Any, key: Any) -> None:
    del parent[key]


def nulled(parent: Any, key: Any) -> None:
    parent[key] = None


def emptied(parent: Any, key: Any) -> None:
    """Only fields: Feishu has not been seen to send "" as an item of a list."""
    if isinstance(parent, dict):
        parent[key] = ""


def turned(parent: Any, key: Any) -> None:
    """7 becomes "7" and "7" becomes 7."""
    value = parent[key]
    if isinstance(value, int) and not isinstance(value, bool):
        parent[key] = str(value)
    elif isinstance(value, str) and value.isdecimal():
        parent[key] = int(value)


CHANGES = (dropped, nulled, emptied, turned)


@pytest.mark.parametrize("event_type", MODELLED)
def test_a_sample_has_no_field_that_its_model_does_not_name(event_type: str) -> None:
    payload = parse(event_type, body(event_type))
    assert type(payload) is payload_model(event_type)
    assert unmodelled(payload) == []


@pytest.mark.parametrize("event_type", MODELLED)
def test_nothing_of_a_sample_is_lost(event_type: str) -> None:
    """Compared without regard to numbers as text and to empty texts, which models read alike."""
    given, read = body(event_type), parse(event_type, body(event_type)).model_dump(by_alias=True)
    for path in paths(given):
        before, after = given, read
        for key in path:
            before, after = before[key], after[key]
        if not isinstance(before, dict | list) and before != "":
            assert str(after) == str(before), path


@pytest.mark.parametrize("event_type", sample_types())
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_body_with_odd_fields_is_read_all_the_same(event_type: str, data: st.DataObject) -> None:
    odd = copy.deepcopy(body(event_type))
    for _ in range(data.draw(st.integers(1, 4), "changes")):
        if not (places := paths(odd)):
            break
        *parents, last = data.draw(st.sampled_from(places), "where")
        target: Any = odd
        for key in parents:
            target = target[key]
        data.draw(st.sampled_from(CHANGES), "change")(target, last)

    assert type(parse(event_type, odd)) is payload_model(event_type)


@pytest.mark.parametrize("event_type", MODELLED)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_any_single_field_may_be_odd(event_type: str, change: Any) -> None:
    for *parents, last in paths(body(event_type)):
        odd = body(event_type)
        target: Any = odd
        for key in parents:
            target = target[key]
        change(target, last)
        parse(event_type, odd)


@pytest.mark.parametrize("event_type", MODELLED)
def test_an_empty_body_is_readable_without_a_none_on_the_way(event_type: str) -> None:
    payload = parse(event_type, {})
    assert absent_parts(payload) == []
    names = payload.model_dump(by_alias=True)
    for empty in (None, ""):
        assert parse(event_type, dict.fromkeys(names, empty)).model_dump(by_alias=True) == names


def test_the_types_that_people_ask_for_have_a_model() -> None:
    assert set(MODELLED) >= ASKED_FOR
    assert set(MODELLED) <= KNOWN_TYPES


@pytest.mark.parametrize("event_type", [*MODELLED, *ALIASES])
def test_an_event_gives_the_payload_of_its_type_or_of_what_the_alias_stands_for(
    event_type: str,
) -> None:
    envelope = sample(event_type)
    envelope.get("header", {})["event_type"] = event_type
    envelope["event"]["type"] = event_type
    payload = Event.from_envelope(envelope).payload
    assert type(payload) is payload_model(event_type) is not Payload
    assert payload_model(event_type) is payload_model(ALIASES.get(event_type, event_type))


def test_a_type_without_a_model_reads_as_its_fields() -> None:
    fields = {"order": 7, "nested": {"a": None}, "nothing": None, "blank": ""}
    payload: Any = parse("custom.event.example_v1", fields)
    assert payload.model_extra == fields
    assert payload.nested == {"a": None}


def test_fields_unknown_to_the_model_are_kept() -> None:
    payload: Any = parse("im.message.receive_v1", {"message": {"new": {"x": 1}, "empty": ""}})
    assert (payload.message.new, payload.message.empty) == ({"x": 1}, "")


def test_numbers_and_texts_stand_for_each_other() -> None:
    reverted: Any = parse("approval_instance", {"operate_time": 1763800000003})
    assert reverted.operate_time == "1763800000003"
    changed: Any = parse("contact.department.updated_v3", {"object": {"order": "100"}})
    assert changed.object.order == 100
    user: Any = parse("contact.user.created_v3", {"object": {"gender": ""}})
    assert user.object.gender is None


def test_null_among_the_items_of_a_list_is_left_out() -> None:
    payload: Any = parse("im.chat.member.user.added_v1", {"users": [None, {"name": "Li"}]})
    assert [user.name for user in payload.users] == ["Li"]


def test_a_field_that_python_has_a_word_for_is_read_under_feishus_name() -> None:
    copied: Any = parse("approval_cc", {"from": "u_b1"})
    assert copied.from_ == "u_b1"
    assert copied.model_dump(by_alias=True)["from"] == "u_b1"


def test_what_a_card_carries_is_an_object_or_a_text() -> None:
    for value in ({"op": "approve"}, "approve"):
        payload: Any = parse("card.action.trigger", {"action": {"value": value}})
        assert payload.action.value == value


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"message": {"content": {"text": "private"}, "chat_id": "oc_1"}}, "Message.content"),
        ({"message": {"mentions": ["private"], "chat_id": "oc_1"}}, "Message.mentions"),
        ({"message": {"chat_id": "oc_1"}, "sender": "private"}, "MessageReceived.sender"),
        ({"message": {"chat_id": "oc_1"}, "sender": [7]}, "MessageReceived.sender"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_of_another_shape_is_kept_and_told_once(body: dict[str, Any], field: str) -> None:
    tell_unexpected.cache_clear()
    with capture_logs() as logs:
        payload: Any = parse("im.message.receive_v1", body)
        parse("im.message.receive_v1", body)
    assert payload.message.chat_id == "oc_1"
    part = payload.message if field.startswith("Message.") else payload
    name = field.partition(".")[2]
    assert (
        getattr(part, name) == body["message" if part is not payload else "sender"][name]
        if (part is not payload)
        else body["sender"]
    )
    assert [(line["event"], line["field"]) for line in logs] == [("payload.unexpected", field)]
    assert "private" not in str(logs)


@pytest.mark.parametrize(
    ("event_type", "body", "path", "value"),
    [
        # A person, creator or modifier field of a table: its ids are an object.
        (
            "drive.file.bitable_record_changed_v1",
            {"action_list": [{"after_value": [{"field_identity_value": {"users": [
                {"user_id": {"open_id": "ou_1"}, "name": "Lin"}]}}]}]},
            "action_list.0.after_value.0.field_identity_value.users.0.user_id.open_id",
            "ou_1",
        ),
        ("card.action.trigger", {"action": {"options": "pic-2"}}, "action.options.0", "pic-2"),
        (
            "contact.scope.updated_v3",
            {"added": {"departments": [{"department_hrbps": ["ou_1"]}]}},
            "added.departments.0.department_hrbps.0.open_id",
            "ou_1",
        ),
        ("drive.file.edit_v1", {"operator_id_list": ["on_1"]},
         "operator_id_list.0.union_id", "on_1"),
        ("drive.file.edit_v1", {"operator_id_list": "u7"}, "operator_id_list.0.user_id", "u7"),
        ("drive.file.edit_v1", {"operator_id_list": {}}, "operator_id_list", ()),
        ("task.task.update_tenant_v1", {"user_id_list": {"user_id_list": ["null"]}},
         "user_id_list.user_id_list.0.user_id", ""),
        ("im.message.receive_v1", {"sender": []}, "sender.sender_id.open_id", ""),
        (
            "contact.department.updated_v3",
            {"object": {"leaders": [{"leader_type": 1, "leader_id": "ou_1"}]}},
            "object.leaders.0.leaderID",
            "ou_1",
        ),
    ],
)  # fmt: skip
def test_the_shapes_that_feishu_really_sends_are_read(
    event_type: str, body: dict[str, Any], path: str, value: Any
) -> None:
    tell_unexpected.cache_clear()
    with capture_logs() as logs:
        found: Any = parse(event_type, body)
    for step in path.split("."):
        found = found[int(step)] if step.isdecimal() else getattr(found, step)
    assert found == value
    assert logs == []


@pytest.mark.parametrize("event_type", MODELLED)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_value_whatever_costs_a_payload(event_type: str, data: st.DataObject) -> None:
    odd = copy.deepcopy(body(event_type))
    *parents, last = data.draw(st.sampled_from(paths(odd)), "where")
    target: Any = odd
    for key in parents:
        target = target[key]
    target[last] = data.draw(JSON, "what")
    payload = parse(event_type, odd)
    assert type(payload) is payload_model(event_type)
    assert pickle.loads(pickle.dumps(payload)) == payload  # noqa: S301
    assert repr(payload)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"message_type": "text", "content": '{"text":"hi"}'}, "hi"),
        ({"message_type": "post", "content": '{"title":"hi"}'}, ""),
        ({"message_type": "text", "content": '{"text":7}'}, ""),
        ({"message_type": "text", "content": "not json"}, ""),
        ({"message_type": "text", "content": "[" * 100_000}, ""),
        ({"message_type": "text", "content": "[]"}, ""),
        ({"message_type": "text", "content": '{"text":"order 17 \\ud83d"}'}, "order 17 \ufffd"),
        ({}, ""),
    ],
    ids=str,
)
def test_the_text_of_a_message(message: dict[str, Any], text: str) -> None:
    payload: Any = parse("im.message.receive_v1", {"message": message})
    assert payload.message.text == text
