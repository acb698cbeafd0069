from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import structlog

from flybridge.handlers import Context, Event
from flybridge.handlers.loading.plugins import load
from flybridge.handlers.registry import registry
from flybridge.handlers.samples import sample
from tests.project import ROOT

NAMES = {
    "im.message.receive_v1": "ReceiveMessage",
    "im.message.message_read_v1": "MessageRead",
    "im.chat.member.user.added_v1": "UserAddedToGroup",
    "im.chat.member.user.deleted_v1": "UserRemovedFromGroup",
    "contact.user.created_v3": "UserCreated",
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
    "im.message.message_read_v1": {"event": "message.read", "message_ids": ("om_m1",)},
    "im.chat.member.user.added_v1": {
        "event": "chat_members.added",
        "chat_id": "oc_c1",
        "members": 1,
    },
    "im.chat.member.user.deleted_v1": {
        "event": "chat_members.removed",
        "chat_id": "oc_c1",
        "members": 1,
    },
    "contact.user.created_v3": {"event": "user.created", "departments": 1, "activated": True},
}
PERSONAL = {
    "open_id", "union_id", "user_id", "name", "en_name", "nickname", "email", "enterprise_email",
    "mobile", "content", "employee_no", "city", "job_title", "zh_cn", "en_us", "text",
}  # fmt: skip


def personal(body: Any, name: str = "") -> set[str]:
    """Values of a body that name people or hold their texts."""
    if isinstance(body, dict):
        return {text for key, value in body.items() for text in personal(value, key)}
    if isinstance(body, list):
        return {text for value in body for text in personal(value, name)}
    return {str(body)} if name in PERSONAL and body else set()


def logged(event_type: str) -> tuple[dict[str, Any], Any]:
    """The log lines of the handlers of a sample, and the sample's body."""
    event = Event.from_envelope(sample(event_type, event_id="ev-1"))
    lines: list[Any]
    with structlog.testing.capture_logs() as lines:
        for registration in registry.lookup(event.type):
            context = Context(1, 5, 0.0, event.id, event.type, registration.name)
            registration.run(event, context)
    (line,) = lines
    return line, event.body


@pytest.fixture
def _loaded(clean_registry: None) -> None:
    load(["flybridge.handlers.builtin"], entry_points=False)


@pytest.mark.usefixtures("_loaded")
def test_each_is_registered_for_the_type_that_feishu_sends() -> None:
    assert set(registry.event_types()) == set(NAMES)
    for event_type, name in NAMES.items():
        (registration,) = registry.lookup(event_type)
        assert registration.name.endswith(f":{name}")
        assert name in sys.modules["flybridge.handlers.builtin"].__all__


@pytest.mark.usefixtures("_loaded")
@pytest.mark.parametrize("event_type", NAMES)
def test_each_writes_one_line_of_facts_and_nothing_about_people(event_type: str) -> None:
    line, body = logged(event_type)
    assert line.items() >= FACTS[event_type].items()
    assert line["log_level"] == "info"
    assert len(personal(body)) > 2, "the sample says something that could leak"
    said = " ".join(str(value) for key, value in line.items() if key not in ("event", "handler"))
    assert {text for text in personal(body) if text in said} == set()


@pytest.mark.usefixtures("_loaded")
def test_what_nobody_handles_goes_to_the_default_which_suggests_a_handler() -> None:
    assert registry.lookup("im.chat.updated_v1") == (registry.default,)
    line, body = logged("im.chat.updated_v1")
    assert (line["event"], line["event_type"]) == ("event.unhandled", "im.chat.updated_v1")
    assert "class ChatUpdated(Handler)" in line["suggestion"]
    assert not any(text in line["suggestion"] for text in personal(body))


@pytest.mark.usefixtures("_loaded")
@pytest.mark.parametrize("event_type", NAMES)
def test_none_fails_for_a_body_without_fields(event_type: str) -> None:
    envelope = sample(event_type)
    envelope["event"] = {}
    event = Event.from_envelope(envelope)
    (registration,) = registry.lookup(event_type)
    registration.run(event, Context(1, 5, 0.0, event.id, event.type, registration.name))


def test_they_are_opt_in_and_payloads_are_not_loaded_before_they_are_needed() -> None:
    program = (
        "import sys, handlers, flybridge.handlers.loading.plugins\n"
        "from flybridge.handlers.registry import registry\n"
        "assert registry.list() == (), registry.list()\n"
        "assert 'pydantic' not in sys.modules\n"
        "from flybridge.handlers.loading import plugins\n"
        "plugins.load(['flybridge.handlers.builtin'], entry_points=False)\n"
        "print(len(registry.list()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout.strip(), done.stderr) == ("5", "")
