from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from flybridge.bridge.process import gc_freeze


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    # A bridge in this process, of another test, may have settled it.
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_is_alive_is_never_visited_again() -> None:
    alive: list[list[int]] = [[] for _ in range(1000)]
    gc_freeze.settle()
    assert gc.get_freeze_count() > len(alive)
    assert not any(each is alive for each in gc.get_objects())


def test_what_comes_later_is_collected_as_ever() -> None:
    gc_freeze.settle()
    later: list[list[int]] = [[]]
    gc_freeze.settle()
    assert any(each is later for each in gc.get_objects())
