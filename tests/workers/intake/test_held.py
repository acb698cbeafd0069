from __future__ import annotations

import time
from types import SimpleNamespace
from typing import cast

import pytest

from flybridge.bridge.process.boottime import boottime
from flybridge.bridge.store.streams import Entry
from flybridge.workers.backlog.waiting import Waiting
from flybridge.workers.claim.claims import Pending, Run
from flybridge.workers.intake.held import Held

SLOTS = 10


@pytest.fixture
def held() -> Held:
    held = Held(cast(Waiting, SimpleNamespace(uncounted=0)))
    held.slots = SLOTS
    return held


def runs(count: int) -> list[Run]:
    entry = Entry("ev", "type", "app", "tk", "2.0", 1, 2, 3, "", "", b"{}")
    return [Run(Pending("stream", f"{n}-0", entry), f"boot:{n}", 1, {}) for n in range(count)]


def test_what_a_suspended_machine_held_is_not_sure_to_be_ours(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock stands still meanwhile."""
    (run,) = runs(1)
    held.add([run], boottime() + 30)
    assert held.ours(run)
    clock_gettime = time.clock_gettime
    slept = {time.CLOCK_BOOTTIME: 3600.0}
    monkeypatch.setattr(time, "clock_gettime", lambda clock: clock_gettime(clock) + slept[clock])
    assert not held.ours(run)


def test_half_a_window_is_read_at_once(held: Held) -> None:
    held.add(runs(SLOTS // 2), 0.0)
    assert held.wait_for_room(60) == SLOTS // 2


def test_a_slot_that_is_free_is_filled_before_half_of_them_are(held: Held) -> None:
    held.add(runs(SLOTS - 1), 0.0)
    assert held.wait_for_room(60) == 1


def test_slots_that_become_free_together_are_filled_together(held: Held) -> None:
    claimed = runs(SLOTS - 1)
    held.add(claimed, 0.0)
    wait = held._room.wait

    def settle_meanwhile(timeout: float | None = None) -> bool:
        held.remove(claimed[:2])
        return wait(0)

    held._room.wait = settle_meanwhile  # type: ignore[method-assign]
    assert held.wait_for_room(60) == 3


def test_what_another_thread_adds_meanwhile_leaves_no_room_and_never_less(held: Held) -> None:
    held.add(runs(SLOTS - 1), 0.0)
    wait = held._room.wait

    def add_meanwhile(timeout: float | None = None) -> bool:
        held.add(runs(2 * SLOTS), 0.0)
        return wait(0)

    held._room.wait = add_meanwhile  # type: ignore[method-assign]
    assert held.wait_for_room(60) == 0


def test_a_full_pool_has_no_room(held: Held) -> None:
    held.add(runs(SLOTS), 0.0)
    assert held.wait_for_room(0) == 0
