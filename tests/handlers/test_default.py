from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog

from flybridge.handlers import Context, Event
from flybridge.handlers.default import _MAX_TYPES, LogUnhandled, stub
from flybridge.handlers.registry import registry


def test_each_type_is_suggested_once(event: Callable[..., Event], context: Context) -> None:
    default = LogUnhandled()
    with structlog.testing.capture_logs() as lines:
        for event_type in ("vc.room.created_v1", "vc.room.created_v1", "im.chat.updated_v1"):
            default.handle(event(event_type, secret="private"), context)
    assert [line["event_type"] for line in lines] == ["vc.room.created_v1", "im.chat.updated_v1"]
    assert "class RoomCreated(Handler)" in lines[0]["suggestion"]
    assert "private" not in str(lines)


def test_a_type_that_is_no_name_gets_no_stub(event: Callable[..., Event], context: Context) -> None:
    with structlog.testing.capture_logs() as lines:
        LogUnhandled().handle(event('x")\nimport os' + "y" * 500), context)
    assert "suggestion" not in lines[0]
    assert len(lines[0]["event_type"]) == 128


def test_made_up_types_without_end_are_not_remembered_without_end(
    event: Callable[..., Event], context: Context
) -> None:
    default = LogUnhandled()
    with structlog.testing.capture_logs() as lines:
        for number in range(_MAX_TYPES + 10):
            default.handle(event(f"x.type_{number}"), context)
    assert len(lines) == len(default._seen) == _MAX_TYPES


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        ("vc.room.created_v1", "RoomCreated"),
        ("im.chat.member.user.added_v1", "ChatMemberUserAdded"),
        ("approval_instance", "ApprovalInstance"),
        ("leave_approvalV2", "LeaveApproval"),
        ("x.1", "Unnamed"),
        ("...", "Unnamed"),
    ],
)
def test_the_stub_can_be_pasted(event_type: str, name: str) -> None:
    exec(stub(event_type), {"__name__": "pasted"})  # noqa: S102
    assert [each.name for each in registry.list()] == [f"pasted:{name}"]
    assert registry.is_registered(event_type)
