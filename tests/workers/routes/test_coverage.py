"""What a worker says it handles, and what others read out of it."""

from __future__ import annotations

import pytest

from flybridge.handlers.registry import Registry
from flybridge.workers.routes.coverage import Coverage
from flybridge.workers.routes.routing import Routing

MESSAGE, READ = "im.message.receive_v1", "im.message.message_read_v1"
CREATED, MADE_UP = "contact.user.created_v3", "weather.storm.sighted_v1"


def handle(event: object, context: object) -> None: ...


def covered(*queues: str, **registered: str) -> Coverage:
    """Of a worker that reads these queues; name=pattern registers a handler."""
    registry = Registry()
    for name, pattern in registered.items():
        pattern, _, queue = pattern.partition("@")
        registry.register(handle, pattern, name=name, queue=queue or None)
    return Coverage.from_json(Coverage.of(registry, Routing.of(registry), queues).to_json())


def test_exact_types_and_patterns_are_handled_in_the_queues_that_are_read():
    coverage = covered("im", one=MESSAGE, two="im.message.*", three="contact.*")
    assert coverage.handlers_of(MESSAGE) == {"one", "two"}
    assert coverage.handlers_of(READ) == {"two"}
    assert coverage.handlers_of(CREATED) == frozenset()


def test_a_type_in_a_queue_of_its_own_is_handled_by_who_reads_that():
    assert covered("im", "contact", one=f"{MESSAGE}@heavy").handlers_of(MESSAGE) == frozenset()
    assert covered("heavy", one=f"{MESSAGE}@heavy").handlers_of(MESSAGE) == {"one"}


def test_types_that_nobody_knows_go_by_pattern_and_the_default_queue():
    assert covered("default", one="*").handlers_of(MADE_UP) == {"one"}
    assert covered("im", one="*").handlers_of(MADE_UP) == frozenset()


def test_an_alias_means_what_feishu_sends():
    coverage = covered("im", one="im.chat.member.user_added_v1")
    assert coverage.handlers_of("im.chat.member.user.added_v1") == {"one"}


@pytest.mark.parametrize("counts", [False, True])
def test_a_default_of_the_users_own_takes_everything_and_covers_no_type(counts: bool):
    registry = Registry()
    if counts:
        registry.settle_unhandled()
    else:
        registry.set_default(handle)
    coverage = Coverage.of(registry, Routing.of(registry), ["im"])
    assert coverage.takes(MESSAGE)
    assert not coverage.handlers_of(MESSAGE)
    assert not coverage.takes(CREATED)
    assert not Coverage.of(Registry(), Routing.of(registry), ["im"]).takes(MESSAGE)


@pytest.mark.parametrize("told", [b"", b"3", b"\xff", b'{"handlers": 3}'])
def test_what_another_program_wrote_there_covers_nothing(told: bytes):
    assert not Coverage.from_json(told).takes(MESSAGE)


def test_workers_with_the_same_handlers_tell_the_same():
    one, other = covered("im", a=MESSAGE, b=READ), covered("im", b=READ, a=MESSAGE)
    assert one.to_json() == other.to_json()
