"""When a pool makes no headway, and when it does again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flybridge.workers.dispatch.relief import STUCK_AFTER, Relief

LATER = 10.0 + STUCK_AFTER + 0.1


def request(*, running: bool = False) -> Any:
    return SimpleNamespace(is_running=running, passed_over=False)


class Given(dict[Any, float]):
    """SimpleNamespaces have no hash; requests have."""

    def __init__(self, *pairs: tuple[Any, float]) -> None:
        self._pairs = pairs

    def items(self) -> Any:
        return self._pairs


def test_a_request_is_stuck_when_the_pool_has_not_begun_it_for_long() -> None:
    waits, runs, fresh = request(), request(running=True), request()
    given = Given((waits, 10.0), (runs, 10.0), (fresh, LATER))
    assert Relief().stuck(given, 10.5) == []
    assert Relief().stuck(given, LATER) == [waits]


def test_a_pool_stands_still_while_something_waits_and_nothing_moves() -> None:
    relief = Relief()
    assert not relief.stands_still(1, 10.0, waits=True)
    assert not relief.stands_still(1, 10.5, waits=True)
    assert relief.stands_still(1, LATER, waits=True)
    assert not relief.stands_still(2, LATER, waits=True)
    assert not relief.stands_still(2, LATER + 60, waits=False)
    assert not relief.stands_still(2, LATER + 60.1, waits=True)


def test_it_ends_when_the_pool_ends_something_answers_or_comes_to_what_it_has_lost() -> None:
    lost = request()
    for ended, deaf, passed_over, over in (
        (3, True, False, False),
        (4, True, False, True),
        (3, False, False, True),
        (3, False, True, True),
    ):
        relief = Relief()
        relief.begin(3, [lost], deaf=True)
        assert relief.is_on
        lost.passed_over = passed_over
        relief.look(ended, deaf=deaf, has_room=True)
        assert relief.is_on is not over


def test_it_ends_when_the_pool_has_room_unless_that_had_to_give_something_back() -> None:
    relief = Relief()
    relief.begin(3, [], deaf=False)
    relief.look(3, deaf=False, has_room=False)
    assert relief.is_on
    relief.look(3, deaf=False, has_room=True)
    assert not relief.is_on
    relief.begin(3, [request()], deaf=False)
    relief.look(3, deaf=False, has_room=True)
    assert relief.is_on
