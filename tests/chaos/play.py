"""One run: the cast, the events, the observers; and what faults need to do their work.

It hurts nobody and judges nothing: faults get a `Play` and use it, `checker` gets its `history`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from redis.exceptions import RedisError

from flybridge.bridge.local.feishu.pushes import Push
from tests.chaos.auditor import Auditor
from tests.chaos.cast import Cast, ProxiedFeishu
from tests.chaos.deeds import TAKING, DeedsFile, LogFile
from tests.chaos.generator import (
    BUSINESS,
    HANDLERS,
    MORTAL,
    ORDERED,
    Generator,
    envelope,
)
from tests.chaos.history import (
    EVERYBODY,
    Disturbance,
    History,
    Pushed,
    Recovery,
    Slope,
)
from tests.chaos.proxy import CutProxy
from tests.chaos.servers import Servers
from tests.chaos.soak import Soak

LAG = 0.5
"""Seconds our own loop may be late before the machine counts as disturbed."""

GROUP = "workers"

MARKS = 2
"""Keys that stay for each event: published, and done or dead."""

KEYS = 200.0
"""Streams, sets, the lease, and what Celery keeps."""


class Play:
    """Made by `opening.playing`."""

    def __init__(
        self,
        directory: Path,
        servers: Servers,
        feishu: ProxiedFeishu,
        cast: Cast,
        auditor: Auditor,
        seed: int,
        collector: CutProxy | None = None,
    ) -> None:
        self.settings = cast.settings
        self.collector = collector
        """The way to the collector of traces, if there is one."""
        self.soak = Soak(cast)
        self.planted: list[Pushed] = []
        self._plants = count()
        self.directory, self.servers, self.feishu, self.cast = directory, servers, feishu, cast
        self.auditor = auditor
        self.random = Random(seed)
        self.deeds = DeedsFile(cast.stage.deeds_file)
        self.logs = {name: LogFile(directory / f"{name}.log", offset()) for name in cast.roles}
        self.generator = Generator(feishu, self.deeds, Random(seed + 1), f"e{seed}")
        self.disturbances: list[Disturbance] = []
        self.recoveries: list[Recovery] = []
        self.counts: Counter[str] = Counter()
        """Fault -> how often it was done."""

    # For faults.

    @contextmanager
    def hurting(self, fault: str, *actors: str, **marks: bool) -> Iterator[dict[str, bool]]:
        """Note that a fault hurts these actors (none given: everybody) while the block runs.

        Args:
            marks: of the `Disturbance`; the block is given them, and may set more.
        """
        begin = time.monotonic()
        try:
            yield marks
        finally:
            hurt = frozenset(actors or (EVERYBODY,))
            self.disturbances.append(Disturbance(fault, hurt, begin, time.monotonic(), **marks))

    async def until(self, condition: Callable[[], Any], within: float) -> Any:
        """Wait for a condition; its value, or None when it did not come true."""
        deadline = time.monotonic() + within
        while not (value := condition()):
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.02)
        return value

    async def pause(self, least: float, most: float) -> None:
        """Let some time pass."""
        await asyncio.sleep(self.random.uniform(least, most))

    async def leader(self) -> str:
        """The bridge that leads now, or any if none does."""
        return await self.cast.leader() or self.random.choice(self.cast.bridges)

    def worker(self) -> str:
        return self.random.choice(self.cast.workers)

    def connected(self) -> list[str]:
        """Bridges with a connection to Feishu."""
        links = self.cast.feishu_links
        return [name for name, link in links.items() if link.connections]

    def connected_since(self, instant: float, other_than: str = "") -> Callable[[], float | None]:
        """Gives when a bridge came to be connected to Feishu after an instant; None: not yet."""

        def look() -> float | None:
            logs = (self.logs[name] for name in self.cast.bridges if name != other_than)
            times = [at for log in logs if (at := log.has("feishu.connected", instant))]
            return min(times, default=None)

        return look

    def running_in(self, pids: Collection[int], handler: str = "") -> set[str]:
        """Events that these processes were running handlers of when they last wrote."""
        self.deeds.look()
        return {
            deed.event_id
            for deed in self.deeds.open.values()
            if deed.pid in pids and handler in ("", deed.handler)
        }

    def started_since(self, events: set[str], instant: float) -> Callable[[], float | None]:
        """Gives when the last of these events was started or ended again; None: not yet."""

        def look() -> float | None:
            times: dict[str, float] = {}
            for deed in reversed(self.deeds.deeds):
                if deed.time < instant:
                    break
                if deed.event_id in events:
                    times[deed.event_id] = deed.time
            return max(times.values()) if len(times) == len(events) else None

        return look

    async def plant(self, event_type: str, fields: Mapping[str, str]) -> None:
        """Add an entry to a stream past the bridges, with fields of its own.

        It counts as acked when the replica has it, too, which may be promoted.
        """
        event_id = f"planted-{next(self._plants)}"
        keys = self.cast.stage.keys
        entry = {
            "event_id": event_id, "event_type": event_type, "schema": "2.0",
            "envelope": envelope(event_id, event_type, {}), **fields,
        }  # fmt: skip
        with suppress(RedisError, OSError):
            pipeline = self.servers.client().pipeline(transaction=False)
            pipeline.xadd(keys.stream(event_type), entry)  # type: ignore[arg-type]
            _, copies = await pipeline.wait(1, 1000).execute()
            if copies:
                now = time.monotonic()
                self.planted.append(Pushed(event_id, event_type, now, now))

    async def recovers(
        self, kind: str, fault: str, limit: float, condition: Callable[[], Any], began: float
    ) -> None:
        """Wait for a condition, and note how long it took since `began`.

        Args:
            condition: gives when it came true, or True for just now.
        """
        done = await self.until(condition, limit + 5.0)
        ended = time.monotonic() if done is True else done
        self.recoveries.append(Recovery(kind, fault, began, ended, limit))

    async def well(self, within: float = 15.0) -> bool:
        """Wait until everybody runs and one bridge is connected; whether that came true."""
        return bool(await self.until(self._well, within))

    def _well(self) -> bool:
        return (
            all(self.cast.running(name) and self._ready(name) for name in self.cast.roles)
            and len(self.connected()) == 1
        )

    def _ready(self, name: str) -> bool:
        if not self.cast.roles[name].is_worker:
            return True
        since = self.cast.started[name]
        return any(self.logs[name].has(event, since) is not None for event in TAKING)

    # For the run.

    def look(self) -> None:
        """Read what actors have written since."""
        self.deeds.look()
        for log in self.logs.values():
            log.look()

    async def observe(self) -> None:
        """Look around, and notice when we ourselves come late: then so does everybody."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            if now - before > 0.1 + LAG:
                self.disturbances.append(
                    Disturbance("machine", frozenset({EVERYBODY}), before, now)
                )
                self.counts["(machine late)"] += 1
            self.look()
            self.soak.look(now)
            before = now

    async def calm(self, within: float) -> bool:
        """With all faults healed: wait until each event is acked and done or dead."""
        deadline = time.monotonic() + within
        left = self.generator.pushes
        while left and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            with suppress(RedisError, OSError):
                states = await self.states(push.event_id for push in left)
                left = [push for push in left if not _over(push, states)]
        return not left

    async def states(self, event_ids: Iterable[str]) -> dict[str, str]:
        """Event id -> what Redis has recorded."""
        found: dict[str, str] = {}
        ids = list(event_ids)
        client = self.servers.client()
        for start in range(0, len(ids), 1000):
            pipeline = client.pipeline(transaction=False)
            part = ids[start : start + 1000]
            for event_id in part:
                pipeline.hget(self.cast.stage.keys.state(GROUP, event_id), "state")
            answers = await pipeline.execute()
            found |= {k: v.decode() if v else "" for k, v in zip(part, answers, strict=True)}
        return found

    async def history(self) -> History:
        """Everything about this run, for the checker."""
        for _ in range(2):  # a look that is under way already may have missed something
            self.auditor.caught_up.clear()
            await asyncio.to_thread(self.auditor.caught_up.wait, 10.0)
        self.look()
        readable = [push.event_id for push in self.generator.pushes if push.event_type]
        readable += [planted.event_id for planted in self.planted]
        return History(
            handlers=HANDLERS,
            mortal=MORTAL,
            ordered=ORDERED,
            business=BUSINESS,
            pushes=[*self._pushed(), *self.planted],
            deeds=self.deeds.deeds,
            settled=[line for log in self.logs.values() for line in log.settled],
            entries=list(self.auditor.entries),
            dead_letters=list(self.auditor.dead_letters),
            states=await self.states(dict.fromkeys(readable)),
            disturbances=self.disturbances,
            recoveries=self.recoveries,
            slopes=[*self.soak.slopes(), *await self._keys(len(readable))],
            exits=self.cast.exits,
        )

    async def _keys(self, events: int) -> list[Slope]:
        """Keys beyond the two marks of each event: they may not depend on what has happened."""
        if not self.soak.measuring:
            return []
        # Not DBSIZE, which counts keys that have expired and wait to be collected.
        found = {key async for key in self.servers.client().scan_iter(count=10_000)}
        # Business keys are as many as there are: kept as long as the marks.
        short = (b"lock-signal:", b":business:", b":buried:")
        lasting = sum(not any(part in key for part in short) for key in found)
        extra = float(lasting - MARKS * events)
        return [Slope("keys beyond the marks of events", 0.0, extra, KEYS)]

    def _pushed(self) -> list[Pushed]:
        found = []
        for push, pushed in zip(self.generator.pushes, self.generator.times, strict=True):
            acks = [each.answered for each in push.attempts if each.ending == "acked"]
            acked = acks[0] if acks else None
            unreadable = b"" if push.event_type else push.payload
            key = self.generator.keys.get(push.event_id, "")
            found.append(Pushed(push.event_id, push.event_type, pushed, acked, unreadable, key))
        return found


def _over(push: Push, states: Mapping[str, str]) -> bool:
    return push.acked and (not push.event_type or states[push.event_id] in ("done", "dead"))


def offset() -> float:
    """Monotonic seconds minus Unix seconds, on this machine now."""
    return time.monotonic() - time.time()
