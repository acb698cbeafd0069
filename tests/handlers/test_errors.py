from __future__ import annotations

import pickle
from typing import Any

import pytest

from flybridge.handlers import Reject, Retry
from flybridge.handlers.errors import (
    MAX_RETRY_WAIT,
    EventInvalid,
    HandlerError,
    PluginBroken,
    RegistrationInvalid,
)


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), MAX_RETRY_WAIT + 1, True, "5"])
def test_retry_after_an_impossible_time_is_refused(after: Any) -> None:
    with pytest.raises(ValueError, match="give seconds"):
        Retry(after)


@pytest.mark.parametrize(
    "error",
    [
        Retry(3.0, "busy"),
        Retry(),
        Reject("no such chat"),
        EventInvalid("detail"),
        RegistrationInvalid("sentence"),
        PluginBroken("myapp", "cause"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_process_borders_with_their_data(error: HandlerError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert isinstance(copy, HandlerError)
    assert str(error)


def test_a_week_is_the_longest_wait_for_a_retry() -> None:
    assert Retry(MAX_RETRY_WAIT).after == 7 * 86_400
    with pytest.raises(ValueError, match="from 0 to 604800"):
        Retry(MAX_RETRY_WAIT + 1)
