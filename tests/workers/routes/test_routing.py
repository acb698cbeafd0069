"""Routing: event type -> task -> queue, from the registry alone."""

from __future__ import annotations

import pytest

from flybridge.handlers import Batch, Registry
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.workers.routes.routing import HARD_LIMIT_MARGIN, INTERRUPT_GRACE, OTHER, Routing


def handler(event, context) -> None: ...


def other_handler(event, context) -> None: ...


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_type_with_handlers_has_a_task_of_its_own(registry):
    registry.register(handler, "im.message.receive_v1")
    routing = Routing.of(registry)
    assert routing.task_of("im.message.receive_v1") == "feishu.im.message.receive_v1"
    assert routing.task_of("im.chat.updated_v1") == OTHER


def test_a_pattern_gives_every_known_type_that_it_covers_a_task(registry):
    registry.register(handler, "im.message.*")
    routing = Routing.of(registry)
    assert routing.task_of("im.message.recalled_v1") == "feishu.im.message.recalled_v1"
    assert routing.task_of("im.message.made_up_v9") == OTHER


@pytest.mark.parametrize(
    ("event_type", "queue"),
    [
        ("im.message.receive_v1", "im"),
        ("contact.user.created_v3", "contact"),
        ("leave_approval", "approval"),
        ("weather.storm.sighted_v1", "default"),
    ],
)
def test_the_queue_of_a_type_is_its_domain(registry, event_type, queue):
    registry.register(handler, "im.message.receive_v1")
    assert Routing.of(registry).queue_of(event_type) == queue


def test_a_handler_may_name_its_queue(registry):
    registry.register(handler, "im.message.receive_v1", queue="slow")
    routing = Routing.of(registry)
    assert routing.queue_of("im.message.receive_v1") == "slow"
    assert routing.queue_of("im.chat.updated_v1") == "im"
    assert routing("feishu.im.message.receive_v1") == {"queue": "slow"}
    assert "slow" in routing.queues()


def test_handlers_of_one_type_may_not_name_two_queues(registry):
    registry.register(handler, "im.message.receive_v1", queue="slow")
    registry.register(other_handler, "im.message.*", queue="fast")
    with pytest.raises(RegistrationInvalid, match=r"im\.message\.receive_v1 .*\(fast, slow\)"):
        Routing.of(registry)


def test_a_queue_of_one_handler_is_that_of_the_others_who_name_none(registry):
    registry.register(handler, "im.message.receive_v1", queue="slow")
    registry.register(other_handler, "im.message.receive_v1")
    assert Routing.of(registry).queue_of("im.message.receive_v1") == "slow"


def test_a_task_has_the_most_patient_limits_of_its_handlers(registry):
    registry.register(handler, "im.message.receive_v1", timeout=3, max_attempts=2)
    registry.register(other_handler, "im.message.receive_v1", timeout=7, max_attempts=1)
    route = Routing.of(registry).routes["feishu.im.message.receive_v1"]
    # One may be called again beside the other, until that has had its time.
    assert (route.soft_time_limit, route.time_limit) == (
        14,
        14 + INTERRUPT_GRACE + HARD_LIMIT_MARGIN,
    )
    assert route.max_attempts == 2


def test_handlers_that_run_in_order_have_the_time_of_all(registry):
    registry.register(handler, "im.message.receive_v1", timeout=3)
    registry.register(other_handler, "im.message.receive_v1", timeout=7)
    route = Routing.of(registry, parallel=False).routes["feishu.im.message.receive_v1"]
    assert route.soft_time_limit == 10


def test_a_batch_has_the_time_of_all_calls_that_it_takes(registry):
    task, given = "feishu.im.message.receive_v1", {"timeout": 3}
    registry.register(handler, "im.message.receive_v1", batch=Batch(size=10), **given)
    assert Routing.of(registry).routes[task].soft_time_limit == 3
    registry.register(other_handler, "im.message.*", batch=Batch(size=4), **given)
    assert Routing.of(registry).routes[task].soft_time_limit == 3 + 3 * 3
    registry.register(handler, "im.*", name="one", timeout=1)
    assert Routing.of(registry).routes[task].soft_time_limit == 12 + 10 * 1


def test_a_rate_of_single_events_beside_a_batch_is_refused_for_it_could_not_be_kept(registry):
    registry.register(handler, "im.message.receive_v1", batch=Batch(size=10), rate_limit=1)
    Routing.of(registry)
    registry.register(other_handler, "im.*", name="rated", rate_limit=2)
    with pytest.raises(RegistrationInvalid, match=r"rated takes single events of im\.message"):
        Routing.of(registry)


def test_of_several_handlers_the_strictest_rate_and_concurrency_count(registry):
    registry.register(handler, "im.message.receive_v1", rate_limit="90/m", concurrency=3)
    registry.register(other_handler, "im.message.receive_v1", rate_limit=2, concurrency=8)
    route = Routing.of(registry).routes["feishu.im.message.receive_v1"]
    assert (route.rate_limit, route.concurrency) == ("90/m", 3)


def test_types_nobody_knows_are_limited_only_by_handlers_that_may_get_them(registry):
    registry.register(handler, "im.message.receive_v1", rate_limit="1/h")
    assert Routing.of(registry).routes[OTHER].rate_limit is None
    registry.register(other_handler, "im.*", concurrency=4)
    routes = Routing.of(registry).routes
    assert routes[OTHER].concurrency == 4
    assert routes["feishu.im.message.recalled_v1"].concurrency == 4
    assert routes["feishu.im.message.recalled_v1"].rate_limit is None


def test_the_task_of_other_types_bears_with_any_handler(registry):
    # A pattern may cover types that nobody knows today.
    registry.register(handler, "im.message.*", timeout=99)
    assert Routing.of(registry).routes[OTHER].soft_time_limit == 99


def test_celery_is_told_nothing_about_tasks_of_the_users_own(registry):
    assert Routing.of(registry)("myapp.tasks.send") is None


def test_every_domain_has_a_queue_even_without_handlers(registry):
    assert {"im", "contact", "approval", "default"} <= set(Routing.of(registry).queues())


def test_workers_of_all_queues_cover_everything_and_others_their_queues_and_types() -> None:
    registry = Registry()
    registry.register(lambda event, context: None, "im.message.receive_v1", queue="slow")
    routing = Routing.of(registry)
    assert routing.covered(routing.queues()) == {"*"}
    assert routing.covered(["slow"]) == {"queue:slow", "type:im.message.receive_v1"}
    assert routing.covered(["im"]) == {"queue:im"}
