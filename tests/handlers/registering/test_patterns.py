from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import structlog

from flybridge.handlers import Context, Event
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registering.patterns import check, narrow, resolve, warn_of_misspelling

Maker = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("pattern", ["", "im message", "im.message.?", "im.[a]", "消息", "a\n", 7])
def test_other_characters_are_refused(pattern: Any) -> None:
    with pytest.raises(RegistrationInvalid, match=r"here: .* is not an event type"):
        check(("im.*", pattern), "here")


def test_no_pattern_is_refused() -> None:
    with pytest.raises(RegistrationInvalid, match="no event types"):
        check((), "here")


def test_aliases_are_resolved_and_each_name_kept_once() -> None:
    given = ("approval.approval.approved_v1", "im.*", "approval.approval.rejected_v1")
    assert resolve(given) == ("approval_instance", "im.*")


@pytest.mark.parametrize(
    ("patterns", "statuses"),
    [
        (("approval.approval.approved_v1",), {"APPROVED"}),
        (("approval.approval.approved_v1", "im.*"), {"APPROVED"}),
        (
            ("approval.approval.approved_v1", "approval.approval.rejected_v1"),
            {"APPROVED", "REJECTED"},
        ),
        (("approval.approval.approved_v1", "approval_instance"), {"APPROVED", "REJECTED", "DONE"}),
        (("approval.approval.approved_v1", "*"), {"APPROVED", "REJECTED", "DONE"}),
        (("approval_instance",), {"APPROVED", "REJECTED", "DONE"}),
    ],
)
def test_an_alias_of_one_status_runs_for_that_status_only(
    patterns: tuple[str, ...], statuses: set[str], v1: Maker, context: Context
) -> None:
    ran: set[str] = set()
    run = narrow(lambda event, context: ran.add(event.body["status"]), patterns)
    for status in ("APPROVED", "REJECTED", "DONE"):
        run(Event.from_envelope(v1("approval_instance", status=status)), context)
    assert ran == statuses


def test_a_gateway_that_sends_the_alias_means_its_status(
    event: Callable[..., Event], context: Context
) -> None:
    approved, rejected = "approval.approval.approved_v1", "approval.approval.rejected_v1"
    ran: list[str] = []
    run = narrow(lambda event, context: ran.append(event.type), (rejected,))
    for sent in (event(rejected), event(approved), event(approved, status="REJECTED")):
        run(sent, context)
    run(event("approval_instance", status=["no", "text"]), context)
    assert ran == [rejected]


def test_narrowing_leaves_other_types_alone(event: Callable[..., Event], context: Context) -> None:
    patterns = ("approval.approval.approved_v1", "im.*")
    run = narrow(lambda event, context: event.type, patterns)
    assert run(event("im.message.receive_v1"), context) == "im.message.receive_v1"


def test_a_near_miss_of_a_known_type_is_pointed_out() -> None:
    with structlog.testing.capture_logs() as lines:
        warn_of_misspelling(("im.message.recieve_v1", "custom.event.example_v1", "im.*"), "here")
    assert [(line["given"], line.get("did_you_mean")) for line in lines] == [
        ("im.message.recieve_v1", "im.message.receive_v1"),
        ("custom.event.example_v1", None),
    ]


@pytest.mark.parametrize("pattern", ["im.mesage.*", "*.recieve_v1", "wheather.*"])
def test_a_pattern_that_matches_no_known_type_is_pointed_out(pattern: str) -> None:
    with structlog.testing.capture_logs() as lines:
        warn_of_misspelling(("*", "im.*", pattern, "im.chat.member.user_added_v1"), "here")
    assert [line["given"] for line in lines] == [pattern]
