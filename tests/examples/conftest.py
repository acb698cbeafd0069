"""Runs an example as a user does: a process between a local Feishu and a real Redis."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.handlers.registry import registry
from tests.scenarios.stage import Actor, Stage
from tests.waiting import eventually

EXAMPLES = Path(__file__).parent.parent.parent / "deploy" / "examples"

Importer = Callable[[str], Any]


@dataclass
class Example:
    """A running example."""

    stage: Stage
    actor: Actor

    def says(self, text: str) -> bool:
        return text in self.actor.log.read_text()

    async def said(self, *texts: str) -> None:
        """Wait until it has written all of them."""
        try:
            await eventually(lambda: all(map(self.says, texts)))
        except AssertionError:
            raise AssertionError(
                f"{texts} is not all in:\n{self.actor.log.read_text()[-6000:]}"
            ) from None

    async def ended(self) -> int:
        """The exit code, after SIGTERM."""
        self.actor.send(signal.SIGTERM)
        return await self.actor.ended()


@dataclass
class Player:
    """Starts examples on a stage."""

    stage: Stage

    def start(self, name: str, *arguments: str, **settings: Any) -> Example:
        script = str(EXAMPLES / f"{name}.py")
        running = f"{name}-{len(self.stage.actors)}"
        given = {"handlers": "", **settings}
        return Example(
            self.stage, self.stage.run(running, sys.executable, script, *arguments, **given)
        )

    async def connected(self, name: str, *arguments: str, **settings: Any) -> Example:
        """Start one, and wait until the local Feishu knows it."""
        example = self.start(name, *arguments, **settings)
        try:
            await eventually(lambda: self.stage.feishu.connections)
        except AssertionError:
            raise AssertionError(f"not connected:\n{example.actor.log.read_text()}") from None
        return example


async def done(stage: Stage, *envelopes: dict[str, Any]) -> list[str]:
    """Push events and wait until each is done; their ids."""
    ids = stage.push(*envelopes)
    await stage.settled(ids)
    assert set(stage.states(ids)) == {"done"}
    return ids


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    with EmbeddedRedis() as redis:
        async with LocalFeishu(clock_scale=100.0, config={"PingInterval": 1}) as feishu:
            stage = Stage(tmp_path, redis, feishu)
            try:
                yield stage
            finally:
                stage.end()


@pytest.fixture
def module(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Importer]:
    """Imports an example into this process, which is given the settings of the stage."""
    for name, value in stage.environment(handlers="").items():
        if name.startswith("FLYBRIDGE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(stage.directory)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    modules, registered = set(sys.modules), {each.name for each in registry.list()}
    yield importlib.import_module
    # What an example decorates, or imports from flybridge.handlers.builtin, is no business of other
    # tests.
    for name in {each.name for each in registry.list()} - registered:
        registry.unregister(name)
    for name in set(sys.modules) - modules:
        if name.startswith("flybridge.handlers.builtin") or (EXAMPLES / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def play(stage: Stage) -> Player:
    return Player(stage)
