"""The paths of `ordered_by` and `dedup_by`: mistakes are refused, unknown fields warned of."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registering.key_paths import check_path
from flybridge.handlers.registry import Registry
from flybridge.handlers.samples import sample_types

MESSAGE = "im.message.receive_v1"


def told(path: str, *patterns: str) -> list[dict[str, Any]]:
    with capture_logs() as lines:
        check_path("dedup_by", path, patterns, "here:1")
    return list(lines)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("body.message.mesage_id", "body.message.message_id"),
        ("body.message.chatid", "body.message.chat_id"),
        ("body.mesage.chat_id", "body.message.chat_id"),
        ("body.sender.sender_id.openid", "body.sender.sender_id.open_id"),
        ("envelope.header.tenant_kye", "envelope.header.tenant_key"),
        ("envelope.heade.event_id", "envelope.header.event_id"),
        ("body.message", "body.message.message_id"),
    ],
)
def test_a_slip_is_refused_with_what_was_meant(path, meant):
    with pytest.raises(RegistrationInvalid, match=rf"^here:1: .*did you mean '{meant}'\?"):
        check_path("dedup_by", path, [MESSAGE], "here:1")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("body.message.mentions", "'body.message.mentions' is a list"),
        ("body.message.mentions.key", "'body.message.mentions' is a list, not an object"),
        ("body.message.chat_id.x", "'body.message.chat_id' is a text or number, not an object"),
    ],
)
def test_what_is_no_key_is_refused(path, reason):
    with pytest.raises(RegistrationInvalid, match=reason):
        check_path("ordered_by", path, [MESSAGE], "here:1")


def test_the_way_out_that_a_refusal_names_works():
    with pytest.raises(RegistrationInvalid, match=r"write 'envelope\.event\.message\.chatid'"):
        check_path("dedup_by", "body.message.chatid", [MESSAGE], "here:1")
    (line,) = told("envelope.event.message.chatid", MESSAGE)
    assert (line["event"], line["did_you_mean"]) == ("key.unknown", "body.message.chat_id")


def test_a_field_that_nobody_knows_is_warned_of():
    (line,) = told("body.message.brand_new", MESSAGE)
    assert (line["event"], line["path"], line["event_type"], line["reason"]) == (
        "key.unknown", "body.message.brand_new", MESSAGE, "'body.message' has no 'brand_new'",
    )  # fmt: skip


@pytest.mark.parametrize("event_type", sample_types())
def test_what_is_in_every_envelope_is_found_in_every_type(event_type):
    path = "envelope.header.event_id" if "." in event_type else "envelope.uuid"
    assert told(path, event_type) == []


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("body.message.chat_id", "im.*"),
        ("body.message.chat_id", "*"),
        ("body.context.open_chat_id", "card.action.trigger"),
        ("body.open_chat_id", "message"),
        ("envelope.header.tenant_key", "*"),
        ("body.anything.at_all", "weather.storm.sighted_v1"),
        ("body.anything.at_all", "weather.*"),
    ],
)
def test_a_path_that_leads_to_a_value_in_some_type_or_in_unknown_ones_is_fine(path, pattern):
    assert told(path, pattern) == []


def test_each_pattern_of_a_handler_is_looked_at():
    (line,) = told("body.message.message_id", MESSAGE, "contact.user.created_v3")
    assert line["event_type"] == "contact.user.created_v3"


@pytest.mark.parametrize("option", ["ordered_by", "dedup_by"])
def test_a_registration_with_a_slip_fails_and_leaves_nothing(option):
    registry, options = Registry(), {option: "body.message.mesage_id"}
    with pytest.raises(RegistrationInvalid, match="message_id"):
        registry.register(lambda event, context: None, MESSAGE, **options)
    assert registry.list() == ()
