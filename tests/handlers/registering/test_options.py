from __future__ import annotations

from typing import Any, ClassVar

import pytest

from flybridge.handlers import Handler
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registering.options import complete, per_second


class Careful(Handler):
    queue: ClassVar[str | None] = "slow"
    max_attempts: ClassVar[int] = 2


def test_options_given_win_over_those_of_the_class() -> None:
    assert complete({"max_attempts": 9, "timeout": 1}, Careful, "here") == {
        "queue": "slow",
        "max_attempts": 9,
        "timeout": 1,
        "backoff": 1.0,
        "backoff_max": 600.0,
        "max_age": None,
        "rate_limit": None,
        "concurrency": None,
        "batch": None,
        "ordered_by": None,
        "dedup_by": None,
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_attemps": 3}, "did you mean 'max_attempts'"),
        ({"zzz": 3}, "known are name, queue, max_attempts"),
        ({"name": ""}, "name=''; give 1 to 200 characters"),
        ({"name": "the second"}, "without spaces"),
        ({"name": 3}, "name=3"),
        ({"max_attempts": 0}, "1 or more"),
        ({"max_attempts": 1.5}, "whole number"),
        ({"max_attempts": True}, "whole number"),
        ({"timeout": 0}, "more than 0"),
        ({"timeout": -1}, "more than 0"),
        ({"timeout": "30"}, "more than 0"),
        ({"timeout": float("inf")}, "more than 0"),
        ({"timeout": float("nan")}, "more than 0"),
        ({"backoff": -1}, "backoff=-1"),
        ({"backoff_max": None}, "backoff_max=None"),
        ({"backoff_max": 604_801}, "a week"),
        ({"backoff": 601}, "exceeds backoff_max=600"),
        ({"backoff_max": 0.5}, "exceeds backoff_max=0.5"),
        ({"max_age": 0}, "more than 0"),
        ({"max_age": float("nan")}, "more than 0"),
        ({"max_age": "1h"}, "more than 0"),
        ({"rate_limit": "10/d"}, "100/m"),
        ({"rate_limit": "0/s"}, "100/m"),
        ({"rate_limit": "-1/s"}, "100/m"),
        ({"rate_limit": 0}, "100/m"),
        ({"rate_limit": True}, "100/m"),
        ({"rate_limit": float("inf")}, "100/m"),
        ({"concurrency": 0}, "1 or more"),
        ({"concurrency": 2.5}, "whole number"),
        ({"queue": "with space"}, "letters"),
        ({"queue": 7}, "letters"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_cure(given: Any, said: str) -> None:
    with pytest.raises(RegistrationInvalid, match=r"^here: ") as refusal:
        complete(given, Handler, "here")
    assert said in str(refusal.value)


def test_a_mistake_in_the_class_attributes_is_found_too() -> None:
    class Hasty(Handler):
        timeout: ClassVar[float] = 0

    with pytest.raises(RegistrationInvalid, match="timeout=0"):
        complete({}, Hasty, "here")


@pytest.mark.parametrize(
    ("rate_limit", "events"),
    [("10/s", 10), ("90/m", 1.5), ("36/h", 0.01), ("0.5/s", 0.5), ("7", 7), (2, 2), (0.25, 0.25)],
)
def test_a_rate_is_given_as_celery_takes_it(rate_limit: str | float, events: float) -> None:
    assert per_second(rate_limit) == events
    assert complete({"rate_limit": rate_limit}, Handler, "here")["rate_limit"] == rate_limit
