"""Every name of the seed's list of event types reaches the event that Feishu really sends."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from flybridge.handlers import Context, Event, Registry
from flybridge.handlers.payloads import Payload
from flybridge.handlers.samples import sample
from flybridge.handlers.types import KNOWN_TYPES, canonical, domain

SEED = {
    "im.message.receive_v1": "im.message.receive_v1",
    "im.message.message_read_v1": "im.message.message_read_v1",
    "im.chat.member.user_added_v1": "im.chat.member.user.added_v1",
    "im.chat.member.user_deleted_v1": "im.chat.member.user.deleted_v1",
    "im.chat.updated_v1": "im.chat.updated_v1",
    "contact.user.created_v3": "contact.user.created_v3",
    "contact.user.updated_v3": "contact.user.updated_v3",
    "contact.user.deleted_v3": "contact.user.deleted_v3",
    "contact.department.created_v3": "contact.department.created_v3",
    "contact.department.updated_v3": "contact.department.updated_v3",
    "contact.department.deleted_v3": "contact.department.deleted_v3",
    "approval.approval.approved_v1": "approval_instance",
    "approval.approval.rejected_v1": "approval_instance",
    "calendar.event.updated_v4": "calendar.calendar.event.changed_v4",
    "meeting.meeting.started_v1": "vc.meeting.meeting_started_v1",
    "meeting.meeting.ended_v1": "vc.meeting.meeting_ended_v1",
}
NAMED_IN_ITS_SOURCE = {
    "approval_instance",
    "approval_task",
    "approval_cc",
    "approval.approval.updated_v4",
    "leave_approval",
    "leave_approvalV2",
    "leave_approval_revert",
    "work_approval",
    "work_approval_revert",
    "out_approval",
    "shift_approval",
    "approval.instance.trip_group_update_v4",
    "approval.instance.remedy_group_update_v4",
    "contact.custom_attr_event.updated_v3",
    "contact.employee_type_enum.created_v3",
    "contact.employee_type_enum.updated_v3",
    "contact.employee_type_enum.deleted_v3",
    "contact.employee_type_enum.actived_v3",
    "contact.employee_type_enum.deactivated_v3",
}


STATUS = {
    "approval.approval.approved_v1": {"APPROVED"},
    "approval.approval.rejected_v1": {"REJECTED"},
}
"""Aliases for some events only of the type that Feishu sends."""


def test_every_type_of_the_seed_is_known_and_has_a_queue() -> None:
    assert {name: canonical(name) for name in SEED} == SEED
    assert set(SEED.values()) | NAMED_IN_ITS_SOURCE <= KNOWN_TYPES
    assert all(domain(name) != "default" for name in {*SEED, *NAMED_IN_ITS_SOURCE})


@pytest.mark.parametrize("name", SEED)
def test_a_handler_under_the_seeds_name_gets_the_event_with_its_typed_payload(name: str) -> None:
    payloads: list[Payload] = []

    def remember(event: Event, context: Context) -> None:
        payloads.append(event.payload)

    registry = Registry()
    registry.register(remember, name)
    event = Event.from_envelope(sample(name))
    assert event.type == SEED[name]
    for registration in registry.lookup(event.type):
        registration.run(event, Context(1, 5, 0.0, event.id, event.type, registration.name))

    (payload,) = payloads
    assert type(payload) is not Payload


@pytest.mark.parametrize("name", STATUS)
def test_a_handler_of_one_status_is_spared_the_others(name: str) -> None:
    statuses: set[str] = set()

    def remember(event: Event, context: Context) -> None:
        statuses.add(event.payload.status)

    registry = Registry()
    registry.register(remember, name)
    (registration,) = registry.lookup("approval_instance")
    for status in ("PENDING", "APPROVED", "REJECTED", "CANCELED", "REVERTED"):
        event = Event.from_envelope(sample("approval_instance", overrides={"status": status}))
        registration.run(event, Context(1, 5, 0.0, event.id, event.type, registration.name))
    assert statuses == STATUS[name]


def test_the_seeds_names_are_told_once_with_what_feishu_sends() -> None:
    """However many handlers and registries use them."""

    def one(event: Event, context: Context) -> None: ...

    def other(event: Event, context: Context) -> None: ...

    with capture_logs() as lines:
        for registry in (Registry(), Registry()):
            for handler in (one, other):
                registry.register(handler, *SEED)
    told = [(line["alias"], line["event_type"]) for line in lines if line["log_level"] == "warning"]
    assert told == [(name, real) for name, real in SEED.items() if name != real]
