"""The Celery app, for `celery -A flybridge.workers.app worker` and `flybridge worker`.

Importing this module reads the settings and loads the handlers; a mistake in either ends the import
with one sentence.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import celery.concurrency
from celery import signals
from kombu import Exchange, Queue

from flybridge.bridge.config.environment import PREFIX
from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.errors import EXIT_PLUGIN, BridgeError, SettingsInvalid
from flybridge.bridge.process import gc_freeze
from flybridge.bridge.store.client import check_server_sync, sync_client
from flybridge.bridge.telemetry import logs, tracing
from flybridge.handlers.errors import PluginBroken, RegistrationInvalid
from flybridge.handlers.loading.plugins import load
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.registry import registry
from flybridge.workers.celery_integration import broker, celery_app, control, tasks
from flybridge.workers.celery_integration.bootstep import IntakeStep
from flybridge.workers.celery_integration.celery_app import App
from flybridge.workers.routes.routing import Routing
from flybridge.workers.run.loops import close_loop

__all__ = ["app"]

log = get_logger(__name__)


def create(settings: WorkerSettings) -> App:
    """The app for these settings, with a task per event type that has handlers."""
    _know_the_working_directory()
    if not celery_app.asks_only():
        load(settings.handlers)
        _refuse_to_discard(settings.handlers)
        if settings.unhandled == "done":
            registry.settle_unhandled()
    parallel = settings.parallel_handlers
    routing = Routing.of(registry, parallel=parallel)
    app = App(_configuration(settings, routing))
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "wants_messages": tasks.UsersTasks(app),
    }
    tasks.register(app, routing, registry, parallel=parallel)
    control.prepare(app, routing, parallel=parallel)
    step = type("Intake", (IntakeStep,), {"settings": settings, "routing": routing})
    app.steps["consumer"].add(step)
    return app


def _know_the_working_directory() -> None:
    """As the console script does: Celery has it on the path only while it looks for the app."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def _refuse_to_discard(modules: Iterable[str]) -> None:
    if registry.list() or registry.has_default:
        return
    places = ", ".join(f"{name} ({_home(name)})" for name in modules)
    if places:
        raise SettingsInvalid(
            [
                f"{PREFIX}HANDLERS: no handler in {places}, so every event would become a dead "
                "letter; decorate one with @handles('im.message.receive_v1'), or name the "
                "module that has them."
            ]
        )
    raise SettingsInvalid(
        [
            f"{PREFIX}HANDLERS is not set, and no installed package offers handlers: every event "
            "would become a dead letter; give your modules, like myapp.feishu, or "
            "flybridge.handlers.builtin for examples that only log."
        ]
    )


def _home(name: str) -> str:
    """Where it was found: the name may be one of the standard library's, or of a folder only."""
    module = sys.modules[name]
    return getattr(module, "__file__", None) or ", ".join(getattr(module, "__path__", ["built in"]))


def _configuration(settings: WorkerSettings, routing: Routing) -> dict[str, Any]:
    exchange = Exchange("feishu", type="direct")
    return {
        "task_queues": [Queue(name, exchange, routing_key=name) for name in routing.queues()],
        "task_default_queue": "default",
        "task_default_exchange": "feishu",
        "task_default_routing_key": "default",
        "task_create_missing_queues": False,
        "task_routes": (routing,),
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_consumer": "flybridge.workers.celery_integration.stray:TaskConsumer",
        "worker_prefetch_multiplier": 4,
        # The handlers' outcomes are settled over another connection, so they need not be repeated.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        **broker.configuration(settings),
    }


def _load() -> tuple[WorkerSettings, App]:
    """Read the settings and make the app.

    Raises:
        BridgeError: it cannot be; where `celery` asks, it ends with the sentence.
    """
    celery_app.shut_out_variables()
    settings = None
    try:
        settings = WorkerSettings.load(broker_url=celery_app.given("broker"))
        logs.configure(settings.log_level, settings.log_format, secrets=settings.secrets)
        return settings, create(settings)
    except (BridgeError, PluginBroken, RegistrationInvalid) as error:
        if not celery_app.is_celery():
            raise
        log_format = settings.log_format if settings is not None else logs.format_to_be()
        logs.say_last(str(error), as_json=log_format == "json")
        raise SystemExit(getattr(error, "exit_code", EXIT_PLUGIN)) from error


settings, app = _load()


@signals.setup_logging.connect
def _set_up_logging(logfile: str | None = None, **_: Any) -> None:
    """With a receiver here, Celery leaves logging alone, `--loglevel` and `--logfile` too.

    Args:
        logfile: of a worker, or of a pool child where each has one of its own (`%i`).
    """
    level = celery_app.given("loglevel")
    logs.configure(
        logging.getLevelName(level).lower() if level is not None else settings.log_level,
        settings.log_format,
        file=logfile,
    )


@signals.worker_process_init.connect
def _child_started(**_: Any) -> None:
    _start_telemetry()
    gc_freeze.settle()


@signals.worker_ready.connect
def _worker_ready(**_: Any) -> None:
    gc_freeze.settle()


@signals.worker_init.connect
def _worker_started(sender: Any, **_: Any) -> None:
    _check_redis()
    # A prefork parent must not hold a provider: its children would inherit a broken one.
    pool = celery.concurrency.get_implementation(sender.pool_cls)
    if pool is not celery.concurrency.get_implementation("prefork"):
        _start_telemetry()


@signals.worker_process_shutdown.connect
def _child_stopping(**_: Any) -> None:
    close_loop()


def _start_telemetry() -> None:
    """Start it in this process, and have this process flush it at its end."""
    started = tracing.start(tracing.WORKER)

    def flush(**_: Any) -> None:
        started.shutdown()

    signals.worker_process_shutdown.connect(flush, weak=False)
    signals.worker_shutdown.connect(flush, weak=False)


def _check_redis() -> None:
    """End the worker if its Redis would lose events, or is not there."""
    client = sync_client(settings.redis_url, app_id=settings.app_id)
    try:
        check_server_sync(client, settings.eviction)
    except BridgeError as error:
        log.critical("worker.refused", reason=str(error))
        raise SystemExit(error.exit_code) from error
    finally:
        client.close()


app.user_options["worker"].add(celery_app.before_detaching(_check_redis))
