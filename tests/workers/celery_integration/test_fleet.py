"""Asking the workers of one app and group, over a real Redis; the workers are played."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery

from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.workers.celery_integration import broker, fleet
from flybridge.workers.celery_integration.fleet import Fleet, NoAnswer


@pytest.fixture
def settings(server: EmbeddedRedis, redis: Any) -> Callable[..., WorkerSettings]:
    def make(group: str = "workers", app_id: str = "cli_test") -> WorkerSettings:
        return WorkerSettings(app_id=app_id, group=group, redis_url=server.url)

    return make


@contextmanager
def worker(settings: WorkerSettings, name: str, *, mute: bool = False) -> Iterator[list[Any]]:
    """A pidbox as Celery's worker has it; gives what it was told."""
    told: list[Any] = []

    def hear(state: Any, **arguments: Any) -> Any:
        told.append(arguments)
        return {"ok": {"handlers": [name], "revision": 1}}

    app = Celery("played", set_as_current=False)
    app.conf.update(broker.configuration(settings))
    node = app.control.mailbox.Node(name, handlers={"handlers": hear, "register_handlers": hear})
    if mute:
        node.reply = lambda *args, **options: None
    stopped, ready = threading.Event(), threading.Event()

    def serve() -> None:
        with app.connection_for_read() as connection:
            node.channel = connection.default_channel
            node.listen()
            while not stopped.is_set():
                try:
                    connection.drain_events(timeout=0.05)
                except TimeoutError:
                    # Subscribed by then.
                    ready.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(10)
        yield told
    finally:
        stopped.set()
        thread.join()
        app.close()


def test_all_answers_are_in_as_soon_as_the_last_is(settings) -> None:
    with worker(settings(), "w1@h") as first, worker(settings(), "w2@h"):
        started = time.monotonic()
        answers, missing = Fleet(settings()).change("register_handlers", 30, module="play")
        assert time.monotonic() - started < 10
    assert (set(answers), missing) == ({"w1@h", "w2@h"}, 0)
    assert first == [{"module": "play"}]


def test_who_heard_it_and_says_nothing_is_counted(settings) -> None:
    with worker(settings(), "w1@h"), worker(settings(), "w2@h", mute=True):
        answers, missing = Fleet(settings()).change("register_handlers", 0.5, module="play")
    assert (set(answers), missing) == ({"w1@h"}, 1)


def test_workers_of_another_group_or_app_hear_nothing(
    settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "ANSWER_TIMEOUT", 0.3)
    with (
        worker(settings("audit"), "same@h") as of_group,
        worker(settings(app_id="cli_other"), "same@h") as of_app,
    ):
        with pytest.raises(NoAnswer, match="app cli_test and group workers"):
            Fleet(settings()).handlers()
        assert Fleet(settings("audit")).handlers().keys() == {"same@h"}
    assert len(of_group) == 1
    assert of_app == []
