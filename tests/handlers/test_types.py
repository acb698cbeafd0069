from __future__ import annotations

import pytest

from flybridge.handlers.types import (
    ALIASES,
    KNOWN_TYPES,
    STATUS_OF_ALIAS,
    canonical,
    domain,
    matches,
)


def test_the_types_of_the_registry_and_of_the_documents_are_known() -> None:
    assert len([name for name in KNOWN_TYPES if "." in name]) == 211
    assert {
        "im.message.receive_v1",
        "calendar.calendar.event.changed_v4",
        "application.bot.menu_v6",
        "application.application.created_v6",
        "card.action.trigger",
        "url.preview.get",
        "vc.meeting.all_meeting_started_v1",
        "approval_instance",
        "leave_approvalV2",
        "p2p_chat_create",
    } <= KNOWN_TYPES


def test_aliases_stand_for_types_feishu_sends_and_are_none_themselves() -> None:
    assert set(ALIASES.values()) <= KNOWN_TYPES
    assert not set(ALIASES) & KNOWN_TYPES
    assert set(STATUS_OF_ALIAS) <= set(ALIASES)


def test_canonical_resolves_aliases_and_leaves_the_rest() -> None:
    assert canonical("im.chat.member.user_added_v1") == "im.chat.member.user.added_v1"
    assert canonical("custom.event.example_v1") == "custom.event.example_v1"


@pytest.mark.parametrize(
    ("pattern", "event_type", "covered"),
    [
        ("im.message.receive_v1", "im.message.receive_v1", True),
        ("im.message.receive_v1", "im.message.receive_v10", False),
        ("im.message.receive_v1", "imxmessage.receive_v1", False),
        ("im.message.*", "im.message.receive_v1", True),
        ("im.message.*", "im.message.reaction.created_v1", True),
        ("im.message.*", "im.message", False),
        ("im.message.*", "im.chat.updated_v1", False),
        ("*", "approval_instance", True),
        ("*.created_v3", "contact.user.created_v3", True),
        ("IM.*", "im.message.receive_v1", False),
        ("meeting.meeting.started_v1", "vc.meeting.meeting_started_v1", True),
        ("vc.*", "meeting.meeting.started_v1", True),
    ],
)
def test_matches(pattern: str, event_type: str, covered: bool) -> None:
    assert matches(pattern, event_type) is covered


def test_a_pattern_of_many_stars_is_no_trap() -> None:
    assert not matches("*a" * 60, "a" * 59 + "b" * 10_000)


@pytest.mark.parametrize(
    ("event_type", "queue"),
    [
        ("im.message.receive_v1", "im"),
        ("im.something.new_v9", "im"),
        ("approval_instance", "approval"),
        ("leave_approvalV2", "approval"),
        ("message", "im"),
        ("user_add", "contact"),
        ("app_open", "application"),
        ("meeting.meeting.started_v1", "vc"),
        ("custom.event.example_v1", "default"),
        ("x" * 1000, "default"),
        ("", "default"),
    ],
)
def test_domain_is_the_queue(event_type: str, queue: str) -> None:
    assert domain(event_type) == queue
