"""What orders a stream: the handlers of its type, known by name, by pattern or by default."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from flybridge.bridge.store.streams import OTHER, Keys
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registry import Registry
from flybridge.workers.routes.ordering import Ordering, line_member
from flybridge.workers.routes.routing import Routing

IM, NEW = "im.message.receive_v1", "im.brand.new_v9"
CHAT, SENDER = "body.message.chat_id", "envelope.header.tenant_key"
KEYS = Keys("cli")


def registry(*handlers: tuple[str, str | None]) -> Registry:
    made = Registry()
    for number, (pattern, ordered_by) in enumerate(handlers):
        made.register(
            lambda event, context: None, pattern, name=f"H{number}", ordered_by=ordered_by
        )
    return made


def order(made: Registry, event_type: str) -> dict[str, list[str]]:
    return json.loads(Ordering(made).of(KEYS.stream(event_type)) or "{}")


def test_a_type_is_ordered_if_any_of_its_handlers_is():
    made = registry((IM, None), (IM, CHAT))
    assert order(made, IM) == {IM: ["event", "message", "chat_id"]}
    assert order(made, "contact.user.created_v3") == {}
    assert Routing.of(made).routes[f"feishu.{IM}"].ordered_by == CHAT


def test_its_replay_stream_is_ordered_alike():
    made = registry((IM, CHAT))
    replay = Ordering(made).of(KEYS.replay("workers", IM))
    assert replay == Ordering(made).of(KEYS.stream(IM)) != ""


def test_a_pattern_orders_types_that_nobody_knows_yet():
    assert order(registry(("im.*", SENDER)), NEW) == {NEW: ["header", "tenant_key"]}


def test_the_default_handler_may_be_ordered_too():
    made = Registry()
    made.set_default(lambda event, context: None, name="D", ordered_by=SENDER)
    assert order(made, NEW) == {NEW: ["header", "tenant_key"]}


def test_the_stream_of_unknown_types_is_ordered_for_those_that_are_known():
    found = order(registry((IM, CHAT), ("contact.*", SENDER)), OTHER)
    assert found[IM] == ["event", "message", "chat_id"]
    assert found["contact.user.created_v3"] == ["header", "tenant_key"]
    assert NEW not in found


def test_what_is_registered_later_counts():
    made = registry((IM, None))
    ordering = Ordering(made)
    assert ordering.of(KEYS.stream(IM)) == ""
    made.register(lambda event, context: None, IM, name="late", ordered_by=CHAT)
    assert ordering.of(KEYS.stream(IM))


def test_two_orders_of_one_type_are_a_mistake():
    with pytest.raises(RegistrationInvalid, match=f"{IM}.*{CHAT}.*{SENDER}.*one order"):
        Routing.of(registry((IM, CHAT), ("im.message.*", SENDER)))


def test_two_patterns_with_an_order_each_are_none_until_a_type_has_both():
    made = registry(("im.*", CHAT), ("contact.*", SENDER))
    assert Routing.of(made).routes["feishu.other"].ordered_by is None
    assert order(made, IM) == {IM: ["event", "message", "chat_id"]}


def test_of_two_orders_of_a_type_nobody_knew_the_first_counts_and_is_told_once():
    ordering = Ordering(registry(("im.brand.*", CHAT), ("im.*.new_v9", SENDER)))
    with capture_logs() as logs:
        found = [ordering.of(KEYS.stream(NEW)) for _ in range(3)]
    assert json.loads(found[-1]) == {NEW: ["event", "message", "chat_id"]}
    assert [line["event"] for line in logs] == ["ordering.ambiguous"]


@pytest.mark.parametrize(
    ("one", "other"), [("9-0", "10-0"), ("1-9", "1-10"), ("1763800000123-0", "1763800000123-1")]
)
def test_members_of_a_line_sort_as_the_ids_do(one, other):
    assert line_member("s", one) < line_member("s", other)
