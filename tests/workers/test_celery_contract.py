"""What we use of Celery beyond its documentation; an upgrade that breaks it should fail here first.

Most of it is used in `workers/celery_integration/requests.py`, `pool.py`, `bootstep.py` and
`aio_pool.py`.
"""

from __future__ import annotations

import inspect
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import billiard.pool
import billiard.process
import celery
import celery.apps.worker
import celery.platforms
import celery.worker.components
import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, bootsteps, signals
from celery.app.control import Control
from celery.app.trace import trace_task
from celery.apps.worker import Worker
from celery.bin.celery import celery as celery_command
from celery.concurrency import asynpool, get_implementation, prefork, thread
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import InvalidTaskError, TaskRevokedError
from celery.worker import WorkController, state
from celery.worker.consumer import Consumer
from celery.worker.consumer.tasks import Tasks
from celery.worker.control import control_command, inspect_command
from celery.worker.pidbox import Pidbox
from celery.worker.request import Request
from kombu.asynchronous import Hub
from kombu.messaging import Consumer as KombuConsumer
from kombu.transport import redis as kombu_redis
from kombu.utils.imports import symbol_by_name

from flybridge.workers.celery_integration.bootstep import IntakeStep
from flybridge.workers.celery_integration.celery_app import ASKING, OwnSettings
from flybridge.workers.celery_integration.child import LAST_WORDS
from flybridge.workers.celery_integration.program import Program
from flybridge.workers.celery_integration.requests import EventRequest, EventTask, Strategy
from flybridge.workers.launch import ASYNCIO_POOL


@pytest.fixture
def app() -> Celery:
    return Celery("contract", broker="memory://", set_as_current=False)


@pytest.fixture
def consumer(app: Celery) -> Consumer:
    """A consumer as Celery makes it, not started."""
    controller = SimpleNamespace(state=state, semaphore=None, use_eventloop=True)
    return Consumer(
        lambda _: None, app=app, pool=BasePool(1), timer=Hub().timer, controller=controller
    )


def takes(function: Callable[..., Any], *names: str) -> None:
    parameters = inspect.signature(function).parameters
    missing = [name for name in names if name not in parameters]
    assert not missing, f"{function.__qualname__} no longer takes {', '.join(missing)}"


def test_the_signals_we_connect_to_exist() -> None:
    used = {
        "setup_logging", "task_received", "worker_init", "worker_process_init",
        "worker_process_shutdown", "worker_shutdown", "worker_shutting_down",
    }  # fmt: skip
    assert not used - set(dir(signals)), "gone from celery.signals; see workers/app.py"


def test_a_bootstep_starts_after_the_task_consumer_and_tells_its_state() -> None:
    assert [symbol_by_name(name) for name in IntakeStep.requires] == [Tasks]
    assert bootsteps.RUN != bootsteps.CLOSE
    takes(bootsteps.StartStopStep.start, "parent")
    takes(bootsteps.StartStopStep.stop, "parent")
    takes(bootsteps.Step.info, "obj")


def test_the_consumer_has_what_the_intake_and_the_strategy_use(consumer: Consumer) -> None:
    # Bootsteps before ours set these two.
    consumer.event_dispatcher = consumer.task_consumer = None
    used = {
        "app", "blueprint", "controller", "disable_rate_limits", "event_dispatcher", "hostname",
        "hub", "on_task_message", "on_task_request", "pool", "strategies", "task_buckets",
        "task_consumer", "timer",
    }  # fmt: skip
    consumer.update_strategies()
    assert not used - set(dir(consumer)), (
        "gone from Consumer; see strategy in workers/celery_integration/requests.py"
    )


def test_every_task_gets_its_own_strategy_hook(app: Celery, consumer: Consumer) -> None:
    @app.task(base=EventTask, name="feishu.contract", event_type="contract", shared=False)
    def process() -> None: ...

    assert process.event_type == "contract"
    strategy = process.start_strategy(app, consumer)
    assert isinstance(strategy, Strategy)
    with pytest.raises(InvalidTaskError):
        strategy(SimpleNamespace(), None, None, None, set())


def test_a_consumer_knows_its_queues(app: Celery) -> None:
    takes(KombuConsumer.consuming_from, "queue")
    assert hasattr(app.amqp.queues, "consume_from")


def test_a_request_can_be_made_without_a_message(app: Celery) -> None:
    @app.task(name="contract.ping", shared=False)
    def ping() -> None: ...

    stand_in = SimpleNamespace(delivery_info={}, properties={})
    headers = {"id": "ev1", "task": "contract.ping", "argsrepr": "<event>", "kwargsrepr": "{}"}
    request = Request(
        stand_in, app=app, hostname="h", eventer=None, task=ping, headers=headers,
        body=(("argument",), {}, None), decoded=True,
    )  # fmt: skip
    assert (request.id, request.name) == ("ev1", "contract.ping")
    assert request._task is ping
    assert request._args == ("argument",)
    assert request._request_dict["id"] == "ev1"
    assert request.revoked() is False


def test_requests_are_told_what_became_of_them_as_we_expect() -> None:
    takes(Request.on_accepted, "pid", "time_accepted")
    takes(Request.on_success, "failed__retval__runtime")
    takes(Request.on_failure, "exc_info", "send_failed_event", "return_ok")
    takes(Request.on_timeout, "soft", "timeout")
    takes(Request.reject, "requeue")
    takes(Request.execute_using_pool, "pool")
    takes(Request.send_event, "type")
    takes(state.task_ready, "request", "successful")
    takes(state.task_reserved, "request")
    ours = {name for name, value in vars(EventRequest).items() if callable(value)}
    of_celery = {"acknowledge", "execute_using_pool", "on_failure", "on_success", "reject"}
    assert ours & of_celery <= set(dir(Request)), "gone from Request; EventRequest overrides it"


def test_the_tracer_returns_the_value_and_says_whether_it_failed(app: Celery) -> None:
    @app.task(name="contract.divide", shared=False)
    def divide(by: int) -> float:
        return 1 / by

    done, info, runtime, _ = trace_task(divide, "id", (2,), {}, {}, app=app)
    assert (done, info) == (0.5, None)
    assert runtime >= 0
    failed, info, _, _ = trace_task(divide, "id", (0,), {}, {}, app=app)
    assert info, "a failure must be told apart from a value; see requests.py: trace_event"
    assert isinstance(failed, ExceptionInfo)
    assert isinstance(failed.exception, Exception)


def test_a_request_that_refuses_to_run_frees_its_slot() -> None:
    released: list[bool] = []

    def refuse(_: Any) -> None:
        raise TaskRevokedError("ev1")

    worker = SimpleNamespace(pool=None, _quick_release=lambda: released.append(True))
    WorkController._process_task(worker, SimpleNamespace(execute_using_pool=refuse))
    assert released == [True]


def test_pools_say_how_many_they_run_at_once() -> None:
    assert thread.TaskPool(7, app=None).num_processes == 7
    assert isinstance(inspect.getattr_static(prefork.TaskPool, "num_processes"), property)
    assert get_implementation("prefork") is prefork.TaskPool
    assert prefork.TaskPool.uses_semaphore
    assert not BasePool.uses_semaphore, "see shares_process in workers/celery_integration/pool.py"


def test_pool_children_die_with_their_parent() -> None:
    used = prefork.process_initializer.__code__.co_names
    assert "set_pdeathsig" in used, "it does no more; see to it in workers/app.py: _child_started"


def test_a_child_can_tell_its_parent_something_of_ours() -> None:
    heard: list[str] = []
    results = billiard.pool.ResultHandler(*[None] * 9)
    numbers = set(results.state_handlers) | {asynpool.WORKER_UP, billiard.pool.TASK}
    assert LAST_WORDS not in numbers, (
        "billiard has taken our number; see workers/celery_integration/child.py"
    )
    results.state_handlers[LAST_WORDS] = heard.append
    results.on_state_change((LAST_WORDS, ("x",)))
    assert heard == ["x"]
    assert "_target" in vars(billiard.process.BaseProcess(target=print))
    assert "outq" in billiard.pool.Worker.contribute_to_object.__code__.co_names
    assert "soft_timeout_sighandler" in billiard.pool.Worker.after_fork.__code__.co_names


def test_a_thread_pool_returns_a_future_under_f() -> None:
    pool = thread.TaskPool(1, app=None)
    work = pool.apply_async(lambda: None)
    assert isinstance(work.f, Future), "see workers/celery_integration/requests.py: _taken_back"
    pool.executor.shutdown()


def test_a_prefork_pool_remembers_work_until_it_is_discarded() -> None:
    cache: dict[int, Any] = {}
    work = billiard.pool.ApplyResult(cache, None)
    assert cache == {work._job: work}
    assert work._cache is cache
    assert not work.accepted()
    assert work._write_to is None
    work.discard()
    assert cache == {}


def test_a_prefork_pool_drops_what_has_not_begun_when_the_broker_is_lost() -> None:
    work = SimpleNamespace(_accepted=False, discard=lambda: dropped.append(True))
    dropped: list[bool] = []
    pool = SimpleNamespace(
        _state=asynpool.RUN, _cache={1: work}, synack=False, outbound_buffer=[work],
        maintain_pool=lambda: None, _active_writers=set(), _active_writes=set(),
        _busy_workers=set(),
    )  # fmt: skip
    asynpool.AsynPool.flush(pool)
    assert dropped, "it keeps it now; so must _taken_back in workers/celery_integration/requests.py"
    assert pool.outbound_buffer == []


def test_a_pool_of_our_own_is_called_as_before() -> None:
    takes(apply_target, "target", "args", "kwargs", "callback", "accept_callback")
    for name in ("on_start", "on_stop", "on_terminate", "on_apply", "terminate_job", "_get_info"):
        assert hasattr(BasePool, name), f"BasePool.{name} is gone; see workers/aio_pool.py"
    given: dict[str, Any] = {}
    pool = BasePool(1)
    pool.on_apply = lambda target, args, kwargs, **options: given.update(options)
    pool.apply_async(print, callback=print)
    assert given["callback"] is print


def test_the_custom_pool_is_named_by_the_environment() -> None:
    code = "from celery.concurrency import get_implementation as g; print(g('custom').__module__)"
    environment = {**os.environ, "CELERY_CUSTOM_WORKER_POOL": ASYNCIO_POOL}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "flybridge.workers.aio_pool"


def test_the_loop_takes_readers_and_wakes_for_them() -> None:
    takes(Hub.add_reader, "fds", "callback")
    takes(Hub.reset)


def test_the_loops_timer_calls_once_and_can_be_told_not_to(consumer: Consumer) -> None:
    takes(consumer.timer.call_after, "secs", "fun")
    calls: list[str] = []
    entry = consumer.timer.call_after(0.0, lambda: calls.append("canceled"))
    entry.cancel()
    consumer.timer.call_after(0.0, lambda: calls.append("called"))
    due = [each for _, each in itertools.islice(consumer.timer, 2) if each]
    for each in due:
        each()
    assert calls == ["called"]


def test_a_tasks_rate_is_a_bucket_of_one_token_which_an_operator_may_change(
    app: Celery, consumer: Consumer
) -> None:
    @app.task(name="contract.rated", shared=False, rate_limit="90/m")
    def rated() -> None: ...

    consumer.reset_rate_limits()
    bucket = consumer.task_buckets["contract.rated"]
    assert (bucket.fill_rate, bucket.capacity) == (1.5, 1)
    assert [bucket.can_consume(), bucket.can_consume()] == [True, False]
    assert 0.5 < bucket.expected_time() <= 1 / 1.5
    rated.rate_limit = None  # what `celery control rate_limit` does
    consumer.reset_rate_limits()
    assert consumer.task_buckets["contract.rated"] is None
    assert consumer.task_buckets["no.such.task"] is None


def test_celerys_settings_are_changed_in_place_and_come_from_the_environment_by_four_names(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = app._conf
    assert app.conf.task_serializer == "json"
    assert app._conf is before, "see workers/celery_integration/celery_app.py: App"
    for name in ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL", "RESULT_BACKEND"):
        monkeypatch.setenv(f"CELERY_{name}", "x://")
    ours = OwnSettings({}, [{"broker_url": "redis://ours"}])
    named = {"broker_url", "broker_read_url", "broker_write_url", "result_backend"}
    found = {getattr(ours, name) for name in named}
    assert found == {"redis://ours", None}


def test_celerys_worker_program_has_the_steps_that_ours_replaces() -> None:
    ours = {name for name, value in vars(Program).items() if callable(value)}
    own = {"_give_back", "_restart", "_stop_soon"}
    assert ours - own <= set(dir(Worker)), "gone from celery.apps.worker.Worker"
    takes(Worker.stop, "in_sighandler", "exitcode")
    takes(WorkController.setup_queues, "include", "exclude")
    assert "requests" in dir(state)
    assert "active_requests" in dir(state)
    assert callable(celery.apps.worker._reload_current_worker)


def test_celerys_consumer_turns_messages_away_by_four_methods() -> None:
    takes(Consumer.on_unknown_message, "body", "message")
    takes(Consumer.on_unknown_task, "body", "message", "exc")
    takes(Consumer.on_invalid_task, "body", "message", "exc")
    takes(Consumer.on_decode_error, "message", "exc")


def test_kombus_redis_channel_has_what_ours_overrides() -> None:
    takes(kombu_redis.Channel.basic_consume, "queue")
    takes(kombu_redis.QoS.restore_by_tag, "tag", "client", "leftmost")
    used = ("_brpop_read", "_q_for_pri", "_update_queue_cycle", "active_queues", "conn_or_acquire")
    assert not [name for name in used if not hasattr(kombu_redis.Channel, name)]
    assert hasattr(kombu_redis.Transport, "_deliver")


def test_celerys_commands_name_their_root_and_their_subcommand() -> None:
    assert celery_command.name == "celery", "see workers/celery_integration/celery_app.py"
    assert ASKING - {"flower"} <= set(celery_command.commands)


def test_a_worker_ends_when_its_state_says_so() -> None:
    assert hasattr(state, "should_stop")
    assert hasattr(state, "revoked")
    assert celery.platforms.EX_FAILURE == 1


def test_a_consumer_takes_tasks_and_rates_that_are_new(app: Celery, consumer: Consumer) -> None:
    consumer.event_dispatcher = consumer.task_consumer = None
    consumer.update_strategies()

    def late() -> None: ...

    assert app.tasks, "finalized, as at the start of a worker"
    task = app.task(late, name="late", base=EventTask, shared=False, rate_limit="10/s")
    assert app.tasks["late"] is task, "made at once; see workers/celery_integration/tasks.py: renew"
    consumer.update_strategies()
    assert "late" in consumer.strategies
    assert consumer.bucket_for_task(task).fill_rate == 10


def test_control_commands_are_told_the_app_and_the_consumer() -> None:
    takes(control_command, "kwargs")
    takes(inspect_command, "kwargs")
    takes(Control.broadcast, "command", "arguments", "connection", "reply", "timeout", "callback")
    source = inspect.getsource(Pidbox.__init__)
    assert "app=c.app" in source
    assert "consumer=c" in source


def test_control_commands_have_the_name_space_that_the_configuration_says(app: Celery) -> None:
    app.conf.control_exchange = "celery.audit"
    assert app.control.mailbox.namespace == "celery.audit"
