"""The bell: heard by the loop, from whatever thread it rings, once for any number of rings."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from kombu.asynchronous import Hub

from flybridge.workers.celery_integration.pool import WakeUp


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def bell(hub: Hub, heard: list[str]) -> WakeUp:
    bell = WakeUp()
    bell.answer = lambda: heard.append("answer")
    bell.attach(hub)
    hub.run_once()
    heard.clear()
    return bell


def test_hanging_it_rings_it_for_what_came_before(hub, heard):
    bell = WakeUp()
    bell.answer = lambda: heard.append("answer")
    bell.attach(hub)
    hub.run_once()
    assert heard == ["answer"]


def test_any_number_of_rings_are_one_answer(hub, bell, heard):
    for _ in range(100_000):
        bell.wake()
    hub.run_once()
    assert heard == ["answer"]
    # A timer, for the loop would wait a second for what must not come.
    hub.call_later(0.01, lambda: None)
    hub.run_once()
    assert heard == ["answer"]
    bell.wake()
    hub.run_once()
    assert heard == ["answer", "answer"]


def test_a_ring_from_another_thread_ends_the_wait(hub, bell, heard):
    thread = threading.Timer(0.05, bell.wake)
    thread.start()
    while not heard:
        hub.run_once()
    thread.join()
    assert heard == ["answer"]


def test_a_ring_during_the_answer_is_answered_too(hub):
    answers: list[int] = []

    def answer() -> None:
        answers.append(len(answers))
        if len(answers) < 3:
            bell.wake()

    bell = WakeUp()
    bell.answer = answer
    bell.attach(hub)
    for _ in range(3):
        hub.run_once()
    assert answers == [0, 1, 2]


def test_it_is_hung_anew_after_the_loop_was_reset(hub, bell, heard):
    bell.wake()
    hub.reset()
    hub._loop = None
    bell.attach(hub)
    hub.run_once()
    assert heard == ["answer"]
    bell.wake()
    hub.run_once()
    assert heard == ["answer", "answer"]
