"""The bootstep: what it does as Celery's consumer comes and goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import bootsteps
from structlog.testing import capture_logs

from flybridge.bridge.errors import EXIT_SETTINGS
from flybridge.handlers import Registry
from flybridge.workers.celery_integration.bootstep import IntakeStep
from flybridge.workers.dispatch.assembly import Assembly
from flybridge.workers.routes.routing import Routing
from flybridge.workers.run import watch


@pytest.fixture
def consumer() -> Any:
    return SimpleNamespace(
        controller=SimpleNamespace(blueprint=SimpleNamespace(state=bootsteps.RUN)),
        hostname="w",
        hub=None,
        pool=object(),
    )


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def step(consumer: Any, calls: list[str]) -> Any:
    """A step with an intake and a pool that are played."""
    routing = Routing.of(Registry())
    step: Any = type("Step", (IntakeStep,), {"routing": routing, "settings": None})(consumer)
    step._worker = Assembly(
        intake=SimpleNamespace(stop=lambda: calls.append("stop")),  # type: ignore[arg-type]
        dispatcher=SimpleNamespace(recall=lambda: calls.append("recall"), requests=3),  # type: ignore[arg-type]
        waiting=SimpleNamespace(limits=SimpleNamespace(parked=2)),  # type: ignore[arg-type]
        held=range(5),  # type: ignore[arg-type]
        claimer=SimpleNamespace(duplicates=1, skipped=4, unhandled=6),  # type: ignore[arg-type]
        settler=SimpleNamespace(settled=7),  # type: ignore[arg-type]
        stalls=SimpleNamespace(count=8),  # type: ignore[arg-type]
        spans=SimpleNamespace(lost=2),  # type: ignore[arg-type]
        isolation=None,  # type: ignore[arg-type]
        clients=(),
    )
    return step


def test_when_the_broker_is_lost_the_pool_takes_back_what_celery_forgets(step, consumer, calls):
    step.stop(consumer)
    assert calls == ["recall"]


def test_at_shutdown_the_intake_gives_back_what_the_pool_took_back(step, consumer, calls):
    consumer.controller.blueprint.state = bootsteps.CLOSE
    step.stop(consumer)
    assert calls == ["recall", "stop"]


def test_inspect_shows_what_the_worker_holds(step, consumer, monkeypatch):
    monkeypatch.setattr(watch.here(), "counts", watch.Counts())  # other tests count there, too
    assert step.info(consumer)["streams"] == {
        "held": 5,
        "parked": 2,
        "requests": 3,
        "settled": 7,
        "duplicates": 1,
        "skipped": 4,
        "overruns": 0,
        "blocked": 0,
        "stalled": 8,
        "spans_lost": 2,
        "unhandled": 6,
    }


def test_a_pool_without_celerys_loop_is_refused(step, consumer):
    with capture_logs() as said, pytest.raises(SystemExit) as ended:
        step.start(consumer)
    assert ended.value.code == EXIT_SETTINGS
    assert "use --pool prefork, threads, solo or asyncio" in said[0]["reason"]
