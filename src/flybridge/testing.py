"""Testing with Flybridge: `run` for one handler, and pytest fixtures for the whole way of an event.

`pytest_plugins = ["flybridge.testing"]` gives the fixtures `local_feishu`, `embedded_redis` and
`flybridge`; see `flybridge.bridge.testing`. `run` and its kin need neither Redis nor Feishu; see
`flybridge.handlers.testing`.
"""

from __future__ import annotations

from flybridge.bridge.testing import (
    FeishuOnThread,
    Flybridge,
    Pushed,
    embedded_redis,
    feishu_on_thread,
    flybridge,
    local_feishu,
)
from flybridge.handlers.testing import (
    Given,
    Result,
    run,
    run_async,
    run_batch,
    run_batch_async,
)

__all__ = [
    "FeishuOnThread",
    "Flybridge",
    "Given",
    "Pushed",
    "Result",
    "embedded_redis",
    "feishu_on_thread",
    "flybridge",
    "local_feishu",
    "run",
    "run_async",
    "run_batch",
    "run_batch_async",
]
