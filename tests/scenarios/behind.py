"""A bridge and a worker, each behind a proxy of its own, and what must hold whatever befalls them.
It makes no trouble itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flybridge.bridge.local.feishu.pushes import Push
from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.bridge.local.valkey import EmbeddedRedis
from tests.chaos.proxy import CutProxy
from tests.scenarios.stage import Actor, Stage, message
from tests.waiting import eventually

TYPE = "im.message.receive_v1"

RE_PUSH_SCALE = 3000.0
"""Feishu's third re-push, an hour after the second, comes after 1.2 s."""

BEARS_TROUBLE = {"lease_duration": 6, "renew_deadline": 4, "retry_period": 0.5}
"""Seconds: with these a leader keeps its lease for 1.5 s of trouble."""

RECOVERY = 6.0
"""Seconds from the end of the trouble until all is as before."""

CELERY_LINES = 12
"""Most lines that Celery's own connection may log of one such trouble."""


@dataclass
class Pair:
    """The two, ready, and all that was pushed to them."""

    stage: Stage
    bridge: Actor
    worker: Actor
    bridge_proxy: CutProxy
    worker_proxy: CutProxy
    pushes: list[Push] = field(default_factory=list)
    added_by_hand: int = 0
    """Entries of their stream that no push has brought."""
    others_saw: Counter[str] = field(default_factory=Counter)
    """Commands of further actors."""

    @property
    def actors(self) -> tuple[Actor, Actor]:
        return self.bridge, self.worker

    @property
    def proxies(self) -> tuple[CutProxy, CutProxy]:
        return self.bridge_proxy, self.worker_proxy

    def push(self, *directions: str) -> list[Push]:
        """Push a message for each stage direction; `twice` is pushed twice."""
        pushed = []
        for direction in directions:
            envelope = message(direction)
            pushed += [self.stage.feishu.push(envelope)]
            if direction == "twice":
                pushed += [self.stage.feishu.push(envelope)]
        self.pushes += pushed
        return pushed

    def push_some(self) -> list[Push]:
        """An event that goes well, one that comes twice, one that fails at first."""
        return self.push("hello", "twice", "fail 1")

    async def all_settled(self, within: float = 20.0) -> None:
        """Wait until all ever pushed is acked and done, once each, by the processes of before."""
        await eventually(lambda: all(push.acked for push in self.pushes), within)
        event_ids = {push.event_id for push in self.pushes}
        await self.stage.settled(list(event_ids), within)
        assert self.entries_added() == len(event_ids) + self.added_by_hand
        counted = self.stage.counted()
        assert {each: counted[each] for each in event_ids} == dict.fromkeys(event_ids, 1)
        assert self.stage.states(list(event_ids)).keys() == {"done"}
        self.still_alive()

    def entries_added(self) -> int:
        """To the stream of messages, ever; some may have been trimmed."""
        with self.stage.redis() as redis:
            information: Any = redis.xinfo_stream(self.stage.keys.stream(TYPE))
        return int(information["entries-added"])

    def forget_pushes(self) -> None:
        """Redis is about to lose all it has; what was pushed so far is no longer looked for."""
        self.pushes.clear()
        self.added_by_hand = 0

    def still_alive(self) -> None:
        assert [actor.process.poll() for actor in self.actors] == [None, None]


@dataclass
class Diary:
    """What an actor logs from now on, but for what handlers were told to do."""

    actor: Actor
    begin: int = field(init=False)

    def __post_init__(self) -> None:
        self.begin = self.actor.log.stat().st_size

    def lines(self, *levels: str) -> list[dict[str, Any]]:
        """At these levels, all if none is given; of other form: as level `raw`."""
        with self.actor.log.open("rb") as log:
            log.seek(self.begin)
            lines = [_record(line) for line in log.read().decode().splitlines()]
        return [
            line
            for line in lines
            if line["event"] != "attempt.failed" and (not levels or line["level"] in levels)
        ]

    def told(self, logger: str) -> list[str]:
        """The events that loggers of this prefix told of, in order; info and above."""
        lines = self.lines("info", "warning", "error", "critical")
        return [line["event"] for line in lines if line["logger"].startswith(logger)]


@dataclass
class Watch:
    """What both log from now on."""

    pair: Pair

    def __post_init__(self) -> None:
        self._bridge, self._worker = Diary(self.pair.bridge), Diary(self.pair.worker)

    async def recovers(self, within: float = RECOVERY) -> None:
        """Events of before, of meanwhile and of now are handled, and the leader kept its lease."""
        self.pair.push_some()
        await self.pair.all_settled(within)
        assert "lease.lost" not in self.told()

    def told(self) -> Counter[str]:
        """Event of our own loggers -> lines."""
        return Counter(
            self._bridge.told("flybridge.bridge") + self._worker.told("flybridge.workers")
        )

    def keys_told(self) -> Counter[str]:
        """Key that is told to be spoilt -> lines."""
        lines = self._bridge.lines("error") + self._worker.lines("error")
        return Counter(line["key"] for line in lines if line["event"] == "key.spoilt")

    def of_celery(self) -> int:
        """Lines of Celery's."""
        return len(self._worker.told("celery"))

    async def is_told_once(self, trouble: set[str], recovery: set[str]) -> None:
        """A line for the trouble and one for its end, for each actor."""
        await eventually(lambda: recovery <= self.told().keys())
        told = self.told()
        assert told == dict.fromkeys(trouble | recovery, 1), told
        assert self.of_celery() <= CELERY_LINES
        assert not self._bridge.lines("raw") + self._worker.lines("raw")


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {"event": line, "level": "raw", "logger": ""}
    return {"event": "", "level": "raw", "logger": "", **record}


@asynccontextmanager
async def pair_behind_proxies(
    directory: Path, *, append_only: bool = True, **settings: Any
) -> AsyncIterator[Pair]:
    """Both started side by side, with a Redis and a Feishu of their own."""
    with EmbeddedRedis(append_only=append_only) as redis:
        async with LocalFeishu(clock_scale=RE_PUSH_SCALE) as feishu:
            stage = Stage(directory, redis, feishu)
            async with proxy_of(stage) as bridge_proxy, proxy_of(stage) as worker_proxy:
                worker = stage.worker(redis_url=worker_proxy.url, **settings)
                bridge = stage.bridge(redis_url=bridge_proxy.url, **settings)
                try:
                    await bridge.logged("feishu.connected")
                    await worker.logged("intake.started")
                    yield Pair(stage, bridge, worker, bridge_proxy, worker_proxy)
                finally:
                    stage.end()


def proxy_of(stage: Stage) -> CutProxy:
    """A proxy in front of the stage's Redis."""
    return CutProxy("127.0.0.1", stage.redis_server.port)
