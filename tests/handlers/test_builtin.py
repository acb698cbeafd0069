from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from handlers import Context, Event
from handlers.plugins import load
from handlers.registry import registry

UID = {"union_id": "on_a1", "user_id": "u01", "open_id": "ou_a1"}
PRIVATE = "PRIVATE"
ROOT = Path(__file__).parents[2]
BODIES: dict[str, dict[str, Any]] = {
    "im.message.receive_v1": {
        "sender": {"sender_id": UID},
        "message": {
            "message_id": "om_m1",
            "message_type": "text",
            "chat_id": "oc_c1",
            "chat_type": "group",
            "content": f'{{"text":"{PRIVATE}"}}',
            "mentions": [{"name": PRIVATE}],
        },
    },
    "im.message.message_read_v1": {
        "reader": {"reader_id": UID},
        "message_id_list": ["om_m1", "om_m2"],
    },
    "im.chat.member.user.added_v1": {
        "chat_id": "oc_c1",
        "name": PRIVATE,
        "users": [{"name": PRIVATE}] * 3,
    },
    "im.chat.member.user.deleted_v1": {
        "chat_id": "oc_c1",
        "name": PRIVATE,
        "users": [{"name": PRIVATE}],
    },
    "contact.user.created_v3": {
        "object": {
            "open_id": "ou_n1",
            "name": PRIVATE,
            "mobile": PRIVATE,
            "email": PRIVATE,
            "department_ids": ["od-1"],
        }
    },
}
FACTS: dict[str, dict[str, Any]] = {
    "im.message.receive_v1": {
        "event": "message.received",
        "message_id": "om_m1",
        "message_type": "text",
        "chat_id": "oc_c1",
        "chat_type": "group",
        "mentions": 1,
    },
    "im.message.message_read_v1": {"event": "message.read", "reader": "ou_a1", "messages": 2},
    "im.chat.member.user.added_v1": {
        "event": "chat_members.added",
        "chat_id": "oc_c1",
        "members": 3,
    },
    "im.chat.member.user.deleted_v1": {
        "event": "chat_members.removed",
        "chat_id": "oc_c1",
        "members": 1,
    },
    "contact.user.created_v3": {"event": "user.created", "open_id": "ou_n1", "departments": 1},
}


@pytest.mark.usefixtures("clean_registry")
def test_each_writes_one_line_of_facts_and_nothing_private(
    event: Callable[..., Event], context: Context
) -> None:
    load(["handlers.builtin"], entry_points=False)
    assert set(registry.event_types()) == set(BODIES)
    for event_type, body in BODIES.items():
        (registration,) = registry.lookup(event_type)
        with structlog.testing.capture_logs() as lines:
            registration.run(event(event_type, **body), context)
        assert len(lines) == 1
        assert lines[0].items() >= FACTS[event_type].items()
        assert lines[0]["log_level"] == "info"
        assert PRIVATE not in str(lines)


def test_they_are_opt_in_and_payloads_are_not_loaded_before_they_are_needed() -> None:
    program = (
        "import sys, handlers, handlers.plugins\n"
        "from handlers.registry import registry\n"
        "assert registry.list() == (), registry.list()\n"
        "assert 'pydantic' not in sys.modules\n"
        "handlers.plugins.load(['handlers.builtin'], entry_points=False)\n"
        "print(len(registry.list()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout.strip(), done.stderr) == ("5", "")
