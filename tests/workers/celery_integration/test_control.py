"""Changing the handlers of a running worker: in its main process and in its pool's children."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from celery import Celery
from celery.concurrency.base import BasePool
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.control import Panel
from kombu import Queue
from kombu.asynchronous import Hub

from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registry import Registry, registry
from flybridge.workers.celery_integration import control, tasks
from flybridge.workers.celery_integration.changes import NONE_MADE, Change, Changes, Made
from flybridge.workers.celery_integration.requests import EventTask, trace_event
from flybridge.workers.routes.routing import HARD_LIMIT_MARGIN, INTERRUPT_GRACE, OTHER, Routing
from flybridge.workers.run import runner
from flybridge.workers.run.items import Item

TYPE = "vc.meeting.meeting_started_v1"
TASK = f"feishu.{TYPE}"

HANDLER = f"""
from flybridge.handlers import handles

@handles("{TYPE}", timeout=7, max_attempts=2, rate_limit="10/s", concurrency=3)
def greet(event, context):
    with open(event.body["file"], "a") as file:
        file.write("x")
"""


@pytest.fixture(autouse=True)
def _clean_registry() -> Iterator[None]:
    before = registry._table
    registry._change(Registry()._table)
    yield
    registry._change(before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "late_good.py").write_text(HANDLER)
    before = set(sys.modules)
    yield tmp_path
    for module in set(sys.modules) - before:
        if module.startswith("late_"):
            del sys.modules[module]


class Worker:
    """The main process of a worker, as far as commands concern it."""

    def __init__(self, *, parallel: bool = True) -> None:
        self.app = Celery("control", broker="memory://", set_as_current=False)
        self.routing = Routing.of(registry, parallel=parallel)
        self.app.conf.task_queues = [Queue(name) for name in self.routing.queues()]
        tasks.register(self.app, self.routing, registry)
        control.prepare(self.app, self.routing, parallel=parallel)
        controller = SimpleNamespace(state=state, semaphore=None, use_eventloop=True)
        self.consumer = Consumer(
            lambda _: None, app=self.app, pool=BasePool(1), timer=Hub().timer, controller=controller
        )
        self.consumer.event_dispatcher = self.consumer.task_consumer = None
        self.consumer.update_strategies()

    def told(self, command: str, **arguments: str) -> Any:
        """What the worker answers; it must survive JSON."""
        state = SimpleNamespace(app=self.app, consumer=self.consumer)
        return json.loads(json.dumps(Panel.data[command](state, **arguments)))

    def task(self, name: str = TASK) -> EventTask:
        found: EventTask = self.app.tasks[name]
        return found


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_module_registered_late_has_task_route_strategy_and_limits(folder, worker) -> None:
    assert worker.routing.task_of(TYPE) == OTHER
    answer = worker.told("register_handlers", module="late_good", who="me@here")
    assert answer == {"ok": {"handlers": ["late_good:greet"], "revision": 1}}
    assert worker.routing.task_of(TYPE) == TASK
    assert worker.routing.concurrency_of(TASK) == 3
    assert worker.routing(TASK) == {"queue": "vc"}
    assert (worker.task().soft_time_limit, worker.task().max_attempts) == (7, 2)
    assert worker.task().rate_limit == "10/s"
    assert worker.consumer.strategies[TASK]
    assert worker.consumer.task_buckets[TASK].fill_rate == 10
    assert worker.told("register_handlers", module="late_good")["ok"]["handlers"] == []


def test_who_runs_handlers_in_order_gives_late_ones_the_time_of_all(folder) -> None:
    (folder / "late_good.py").write_text(f"{HANDLER}\n{HANDLER.replace('greet', 'wave')}")
    worker = Worker(parallel=False)
    assert "error" not in worker.told("register_handlers", module="late_good")
    assert worker.task().soft_time_limit == 14


def test_an_unregistered_handlers_type_is_one_of_the_others(folder, worker) -> None:
    worker.told("register_handlers", module="late_good")
    answer = worker.told("unregister_handler", name="late_good:greet")
    assert answer == {"ok": {"handlers": ["late_good:greet"], "revision": 2}}
    assert worker.routing.task_of(TYPE) == OTHER
    # Requests of it may be under way.
    assert worker.routing.max_attempts_of(TASK) == worker.task(OTHER).max_attempts
    assert worker.consumer.strategies[TASK]
    assert worker.told("register_handlers", module="late_good")["ok"]["handlers"]
    assert worker.routing.task_of(TYPE) == TASK


def test_a_change_of_one_type_keeps_the_rate_an_operator_gave_another(folder, worker) -> None:
    worker.told("register_handlers", module="late_good")
    worker.told("rate_limit", task_name=TASK, rate_limit="2/s")
    bucket = worker.consumer.task_buckets[TASK]
    (folder / "late_more.py").write_text(HANDLER.replace(TYPE, "im.chat.updated_v1"))
    worker.told("register_handlers", module="late_more")
    assert worker.task().rate_limit == "2/s"
    assert worker.consumer.task_buckets[TASK] is bucket


def test_a_second_handler_of_a_type_changes_its_limits_in_place(folder, worker) -> None:
    worker.told("register_handlers", module="late_good")
    task = worker.task()
    worker.told("rate_limit", task_name=TASK, rate_limit="2/s")
    (folder / "late_long.py").write_text(HANDLER.replace("timeout=7", "timeout=70"))
    worker.told("register_handlers", module="late_long")
    assert worker.task() is task
    assert (task.soft_time_limit, task.time_limit) == (
        140,
        140 + INTERRUPT_GRACE + HARD_LIMIT_MARGIN,
    )
    assert task.rate_limit == "2/s"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (HANDLER + "\n1 / 0", "ZeroDivisionError"),
        (HANDLER.replace("timeout=7", "queue='vip'"), "FLYBRIDGE_HANDLERS"),
        ("", "registers no handler"),
    ],
)
def test_a_refused_module_changes_nothing(folder, worker, code, said) -> None:
    (folder / "late_bad.py").write_text(code)
    before = (worker.routing.routes, registry.list(), set(worker.app.tasks))
    with structlog.testing.capture_logs() as lines:
        answer = worker.told("register_handlers", module="late_bad")
    assert said in answer["error"]
    assert (worker.routing.routes, registry.list(), set(worker.app.tasks)) == before
    assert worker.app.changes.made == NONE_MADE
    assert "change.refused" in [line["event"] for line in lines]


def test_an_unknown_name_is_refused(worker) -> None:
    assert "no handler is named 'x'" in worker.told("unregister_handler", name="x")["error"]


def test_the_handlers_are_shown_with_their_options_the_default_last(folder, worker) -> None:
    worker.told("register_handlers", module="late_good")
    answer = worker.told("handlers")
    assert answer["revision"] == 1
    mine, default = answer["handlers"]
    assert (mine["name"], mine["patterns"], mine["timeout"]) == ("late_good:greet", [TYPE], 7)
    assert (default["name"], default["default"]) == (
        "flybridge.handlers.default:LogUnhandled",
        True,
    )
    assert "default" not in mine


def test_celery_knows_the_commands_and_their_arguments() -> None:
    meta = {name: Panel.meta[name] for name in (control.LIST, control.REGISTER, control.UNREGISTER)}
    assert [each.type for each in meta.values()] == ["inspect", "control", "control"]
    assert meta[control.REGISTER].args == [("module", str)]
    assert meta[control.UNREGISTER].args == [("name", str)]


# A child of the pool: forked before the change, it has an app and a registry of its own.


def changes(made: list[Routing], queues: tuple[str, ...] = ("default",)) -> Changes:
    return Changes(made.append, lambda: queues, parallel=True)


def item(folder: Path) -> Item:
    header = {"event_id": "ev-1", "event_type": TYPE, "app_id": "a", "tenant_key": "t"}
    event = {"file": str(folder / "ran")}
    envelope = json.dumps({"schema": "2.0", "header": header, "event": event}).encode()
    return Item("ev-1", TYPE, envelope, 1, {}, 0, "", "")


@pytest.fixture
def child(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr("flybridge.workers.celery_integration.requests.current_app", worker.app)
    return worker


def test_a_child_makes_the_changes_it_has_missed_before_it_runs_the_event(folder, child) -> None:
    made = Made(1, (Change("register", "late_good"),))
    failed, (outcomes, _), _ = trace_event(TASK, "ev-1", {"id": "ev-1"}, ([item(folder)],), made)
    assert (failed, [outcome.finished for outcome in outcomes]) == (0, [("late_good:greet",)])
    assert (folder / "ran").read_text() == "x"
    assert child.app.changes.made == made


def test_a_child_that_is_ahead_does_not_go_back(folder, child) -> None:
    child.app.changes.follow(Made(1, (Change("register", "late_good"),)))
    made = Made(2, (Change("register", "late_good"), Change("unregister", "late_good:greet")))
    child.app.changes.follow(made)
    child.app.changes.follow(Made(1, (Change("register", "late_good"),)))
    assert registry.list() == ()
    assert child.app.changes.made == made


def test_a_child_that_cannot_follow_says_so_and_makes_room_for_one_that_has(
    folder, child, monkeypatch
) -> None:
    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr("flybridge.workers.celery_integration.requests.os._exit", leave)
    (folder / "late_bad.py").write_text("1 / 0")
    made = Made(1, (Change("register", "late_bad"),))
    with structlog.testing.capture_logs() as lines, pytest.raises(SystemExit):
        trace_event(TASK, "ev-1", {"id": "ev-1"}, ([item(folder)],), made)
    assert [line["event"] for line in lines] == ["change.failed"]
    assert "ZeroDivisionError" in lines[0]["error"]
    assert child.app.changes.made == NONE_MADE


def test_the_children_that_are_there_are_behind_a_change(folder, worker, monkeypatch) -> None:
    info = {"processes": [os.getpid(), 1, 2]}
    monkeypatch.setattr(worker.consumer.pool, "_get_info", lambda: info)
    worker.told("register_handlers", module="late_good")
    assert worker.app.changes.behind == {1, 2}


def test_changes_repeated_from_any_point_lead_to_the_same_handlers(folder, worker) -> None:
    (folder / "late_more.py").write_text(HANDLER.replace(TYPE, "im.chat.updated_v1"))
    named = HANDLER.replace("timeout=7", "name='same'")
    (folder / "late_one.py").write_text(named)
    (folder / "late_two.py").write_text(named.replace(TYPE, "im.chat.updated_v1"))
    good, more, one, two = (
        Change("register", f"late_{name}") for name in ("good", "more", "one", "two")
    )
    off, same_off = Change("unregister", "late_good:greet"), Change("unregister", "same")
    asked = (good, off, good, one, same_off, more, two, off, good, same_off, off, one, good)
    points = [(registry._table, NONE_MADE, set(sys.modules))]
    for change in asked:
        worker.app.changes.make(change)
        points.append((registry._table, worker.app.changes.made, set(sys.modules)))

    made = worker.app.changes.made
    assert made.revision == len(asked)
    assert {each[:2] for each in made.changes} == {each[:2] for each in asked} - {two[:2]}
    expected = {each.name: each.patterns for each in registry.list()}
    assert set(expected) == {"late_good:greet", "late_more:greet", "same"}
    for table, known, modules in points:
        for module in set(sys.modules) - modules:
            del sys.modules[module]
        registry._change(table)
        follower = changes([])
        follower.made = known
        follower.follow(made)
        assert {each.name: each.patterns for each in registry.list()} == expected


def test_a_module_of_which_no_handler_is_left_need_not_be_repeated(folder, worker) -> None:
    two = HANDLER + HANDLER.replace("def greet", "def wave")
    (folder / "late_two.py").write_text(two)
    make = worker.app.changes.make
    make(Change("register", "late_two"))
    make(Change("unregister", "late_two:greet"))
    assert "late_two" in [each.what for each in worker.app.changes.made.changes]
    make(Change("unregister", "late_two:wave"))
    assert "late_two" not in [each.what for each in worker.app.changes.made.changes]
    make(Change("register", "late_two"))
    assert worker.app.changes.made.changes[-1].what == "late_two"


def test_a_queue_that_no_worker_has_is_refused_with_all_that_came_along(folder) -> None:
    adopted: list[Routing] = []
    with pytest.raises(RegistrationInvalid, match="wants queue"):
        changes(adopted).make(Change("register", "late_good"))
    assert (registry.list(), adopted) == ((), [])


def test_events_flow_while_handlers_come_and_go(folder, worker) -> None:
    # In the threads of one process; what nobody handles is left to other workers.
    stopped, outcomes = threading.Event(), []

    def flow() -> None:
        while not stopped.is_set():
            outcomes.append(runner.run(registry, item(folder), lambda items: None))

    threads = [threading.Thread(target=flow) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(40):
            worker.told("register_handlers", module="late_good")
            registry.register(lambda event, context: None, TYPE, name=f"mine{turn}")
            worker.told("unregister_handler", name="late_good:greet")
            registry.unregister(f"mine{turn}")
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    left = [outcome for outcome in outcomes if outcome.returned]
    assert {outcome.verdict for outcome in outcomes if not outcome.returned} == {"done"}
    assert "late_good:greet" in {name for outcome in outcomes for name in outcome.finished}
    assert left
