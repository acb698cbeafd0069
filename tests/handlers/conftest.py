from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flybridge.handlers import Context, Event
from flybridge.handlers.registering import patterns
from flybridge.handlers.registry import registry

EnvelopeMaker = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _no_alias_was_told() -> None:
    patterns._warn_of_alias.cache_clear()


@pytest.fixture
def v2() -> EnvelopeMaker:
    def make(event_type: str = "im.message.receive_v1", **body: Any) -> dict[str, Any]:
        header = {
            "event_id": "ev-1",
            "event_type": event_type,
            "create_time": "1763800000123",
            "token": "vt",
            "app_id": "cli_x",
            "tenant_key": "tk1",
        }
        return {"schema": "2.0", "header": header, "event": body}

    return make


@pytest.fixture
def v1() -> EnvelopeMaker:
    def make(event_type: str = "approval_instance", **body: Any) -> dict[str, Any]:
        body = {"app_id": "cli_x", "tenant_key": "tk1", "type": event_type, **body}
        return {
            "ts": "1763800000.1234567",
            "uuid": "ev-1",
            "token": "vt",
            "type": "event_callback",
            "event": body,
        }

    return make


@pytest.fixture
def event(v2: EnvelopeMaker) -> Callable[..., Event]:
    def make(event_type: str = "im.message.receive_v1", **body: Any) -> Event:
        return Event.from_json(json.dumps(v2(event_type, **body)).encode())

    return make


@pytest.fixture
def context() -> Context:
    return Context(1, 5, 0.0, "ev-1", "im.message.receive_v1", "tests:Handler")


@pytest.fixture
def clean_registry() -> Iterator[None]:
    """The default registry, empty before and after the test."""
    modules, before = set(sys.modules), registry._table
    for registration in registry.list():
        pytest.fail(f"{registration.name} was left in the registry by another test")
    yield
    registry._change(before)
    for module in set(sys.modules) - modules:
        if module.startswith(("flybridge.handlers.builtin", "plugin_")):
            del sys.modules[module]
