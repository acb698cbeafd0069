"""The exception tree: what a handler of one error may rely on."""

from __future__ import annotations

import inspect

import pytest

from flybridge.bridge import errors
from flybridge.bridge.errors import (
    BridgeError,
    FeishuBusy,
    FeishuCrowded,
    FeishuError,
    FeishuRefused,
)
from flybridge.bridge.errors import FeishuUnavailable as Unavailable

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BridgeError) and kind is not BridgeError
]


@pytest.mark.parametrize("kind", [FeishuBusy, FeishuCrowded, Unavailable])
def test_what_a_retry_may_mend_is_no_final_refusal(kind: type[FeishuError]) -> None:
    assert issubclass(kind, FeishuError)
    assert not issubclass(kind, FeishuRefused)
    assert kind("why", 7).exit_code == FeishuRefused("why").exit_code == errors.EXIT_FEISHU


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_stands_in_the_overview(kind: type[BridgeError]) -> None:
    assert f":exc:`{kind.__name__}`: " in (errors.__doc__ or "")
