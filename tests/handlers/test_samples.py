from __future__ import annotations

import json
import time
from importlib.resources import files

import pytest

from flybridge.bridge.protocol.envelope import header
from flybridge.handlers.samples import sample, sample_types

SOME = "im.message.receive_v1"


def test_every_file_is_listed_and_every_listed_type_is_a_file() -> None:
    names = {
        entry.name
        for entry in (files("flybridge.handlers.samples")).iterdir()
        if entry.name.endswith(".json")
    }
    assert {f"{name}.json" for name in sample_types()} == names
    assert len(sample_types()) > 70


@pytest.mark.parametrize("event_type", sample_types())
def test_a_sample_is_a_valid_envelope_of_its_type(event_type: str) -> None:
    envelope = sample(event_type)
    read = header(json.dumps(envelope).encode())

    assert read.event_type == event_type
    assert read.event_id
    assert not read.event_id.startswith("derived-")
    assert read.app_id
    assert isinstance(envelope["event"], dict)


@pytest.mark.parametrize("event_type", sample_types())
def test_a_sample_was_created_now_under_a_fresh_id(event_type: str) -> None:
    now = time.time() * 1000
    first, second = (header(json.dumps(sample(event_type)).encode()) for _ in range(2))

    assert first.event_id != second.event_id
    assert abs(first.created_at - now) < 5000


def test_an_event_id_and_an_app_id_can_be_given() -> None:
    v2, v1 = (sample(name, event_id="e1", app_id="cli_2") for name in (SOME, "approval_instance"))

    assert (v2["header"]["event_id"], v2["header"]["app_id"]) == ("e1", "cli_2")
    assert (v1["uuid"], v1["event"]["app_id"]) == ("e1", "cli_2")
    assert v1["event"]["uuid"] == "creator-uuid", "the inner uuid is not the event's id"


@pytest.mark.parametrize(
    ("alias", "event_type", "status"),
    [
        ("meeting.meeting.started_v1", "vc.meeting.meeting_started_v1", None),
        ("approval.approval.approved_v1", "approval_instance", "APPROVED"),
        ("approval.approval.rejected_v1", "approval_instance", "REJECTED"),
    ],
)
def test_an_alias_gives_the_sample_of_what_feishu_sends(
    alias: str, event_type: str, status: str | None
) -> None:
    envelope = sample(alias)
    assert header(json.dumps(envelope).encode()).event_type == event_type
    assert envelope["event"].get("status") == status


def test_overrides_are_paths_into_the_event() -> None:
    event = sample(SOME, overrides={"message.chat_id": "oc_9", "message.mentions.0.name": "Bo"})[
        "event"
    ]
    assert event["message"]["chat_id"] == "oc_9"
    assert event["message"]["mentions"][0]["name"] == "Bo"


@pytest.mark.parametrize(
    ("given", "content"),
    [
        ("deploy now", '{"text": "deploy now"}'),
        ("42", '{"text": "42"}'),
        ('{"text":"as it is"}', '{"text":"as it is"}'),
    ],
)
def test_plain_words_become_the_content_of_a_text_message(given: str, content: str) -> None:
    event = sample(SOME, overrides={"message.content": given})["event"]
    assert event["message"]["content"] == content


def test_one_sample_does_not_change_the_next() -> None:
    sample(SOME, overrides={"message.chat_id": "oc_9"})
    assert sample(SOME)["event"]["message"]["chat_id"] == "oc_c1"


def test_an_unknown_type_is_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"im\.message\.receive_v1"):
        sample("im.message.recieve_v1")


@pytest.mark.parametrize("path", ["massage.content", "message.mentions.7.name", "message.a.b"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="first level is: sender, message"):
        sample(SOME, overrides={path: "x"})
