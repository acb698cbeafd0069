from __future__ import annotations

import gc

from bridge import heap


def test_what_is_alive_is_never_visited_again() -> None:
    alive: list[list[int]] = [[] for _ in range(1000)]
    heap.settle()
    try:
        assert gc.get_freeze_count() > len(alive)
        assert not any(each is alive for each in gc.get_objects())
        later: list[list[int]] = [[]]
        heap.settle()
        assert any(each is later for each in gc.get_objects())
    finally:
        gc.unfreeze()
