"""The tasks: outcomes in the order of the events, and no event waits behind a slow one."""

from __future__ import annotations

import json

import pytest
from celery import Celery

from flybridge.handlers import Registry, Retry
from flybridge.workers.celery_integration import tasks
from flybridge.workers.celery_integration.requests import EventTask
from flybridge.workers.dispatch.bundles import BUNDLE_SECONDS
from flybridge.workers.routes.routing import Routing
from flybridge.workers.run.items import Item

TYPE = "im.message.receive_v1"


def item(event_id: str, text: str = "", born: float | None = None) -> Item:
    header = {"event_id": event_id, "event_type": TYPE, "app_id": "app", "tenant_key": "tk"}
    envelope = {"schema": "2.0", "header": header, "event": {"text": text}}
    return Item(event_id, TYPE, json.dumps(envelope).encode(), 1, {}, born, "", "")


class Clock:
    """Stands still while handlers are quick."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def handled() -> list[str]:
    return []


@pytest.fixture
def task(handled: list[str], monkeypatch: pytest.MonkeyPatch) -> EventTask:
    registry, clock = Registry(), Clock()
    monkeypatch.setattr(tasks, "time", clock)

    def handle(event, context) -> None:
        handled.append(event.id)
        clock.now += 2 * BUNDLE_SECONDS if event.body["text"] == "slow" else BUNDLE_SECONDS / 100
        if event.body["text"] == "retry":
            raise Retry

    registry.register(handle, TYPE, timeout=7, max_attempts=3, max_age=3600, rate_limit="90/m")
    app = Celery(set_as_current=False)
    tasks.register(app, Routing.of(registry), registry)
    return app.tasks[f"feishu.{TYPE}"]


def test_every_event_has_its_outcome_in_order(task: EventTask, handled: list[str]) -> None:
    outcomes, longest = task.run([item("a"), item("b", "retry"), item("c")])
    assert [outcome.verdict for outcome in outcomes] == ["done", "retry", "done"]
    assert handled == ["a", "b", "c"]
    assert 0 < longest < BUNDLE_SECONDS


def test_events_behind_a_slow_one_are_left_for_others(task: EventTask, handled: list[str]) -> None:
    outcomes, longest = task.run([item("a"), item("b", "slow"), item("c"), item("d")])
    assert len(outcomes) == 2
    assert handled == ["a", "b"]
    assert longest > BUNDLE_SECONDS


async def test_a_task_tells_the_runner_how_old_an_event_is(task: EventTask) -> None:
    ((outcome,), _) = task.run([item("a", born=-1e9)])
    assert outcome.failed[0].reason == "age"
    ((outcome,), _) = await task.run_async([item("a", born=-1e9)])
    assert outcome.failed[0].reason == "age"


async def test_the_asyncio_pool_runs_the_same(task: EventTask, handled: list[str]) -> None:
    outcomes, _ = await task.run_async([item("a")])
    assert [outcome.verdict for outcome in outcomes] == ["done"]
    assert handled == ["a"]


def test_a_task_has_the_limits_of_its_route(task: EventTask) -> None:
    assert task.event_type == TYPE
    assert (task.soft_time_limit, task.max_attempts, task.rate_limit) == (7, 3, "90/m")
    assert task.time_limit > 7
    assert task.acks_late


def test_types_without_handlers_share_a_task(task: EventTask) -> None:
    assert task.app.tasks["feishu.other"].event_type == ""
