"""The stage of the scenarios: real processes around a local Feishu and a real Redis.

What handlers did is read from a file outside Redis: the proof must not rest on what is proved.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

from flybridge.bridge.local.feishu.pushes import Push
from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET, LocalFeishu
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.process.parent_death import die_with_parent
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.samples import sample
from tests.waiting import eventually

HANDLERS = "acting"
"""The module beside this one whose handlers write down what they do."""

FLYBRIDGE = str(Path(sys.executable).with_name("flybridge"))
"""The console script of the environment that runs the tests."""

PATIENCE = 20.0
"""Seconds a condition may take; scenarios say so where it matters how fast."""


@dataclass
class Actor:
    """One process of ours, with its log of JSON lines."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def lines(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Log lines of this event with these fields."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if not isinstance(record, dict) or record.get("event") != event:
                continue
            if all(record.get(name) == value for name, value in fields.items()):
                found.append(record)
        return found

    def last_words(self) -> list[str]:
        """Why it has ended, as it says itself."""
        return [str(line["reason"]) for line in self.lines("process.refused")]

    async def logged(self, event: str, within: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Wait for such a line."""
        try:
            found = await eventually(lambda: self.lines(event, **fields), within)
        except AssertionError as error:
            raise AssertionError(
                f"{self.name} did not log {event} {fields}:\n{self.log.read_text()[-4000:]}"
            ) from error
        return dict(found[0])

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the process itself; its children are on their own."""
        self.process.kill()
        self.process.wait()

    async def ended(self, within: float = PATIENCE) -> int:
        """Wait for its end; the exit code."""
        await eventually(lambda: self.process.poll() is not None, within)
        return int(self.process.returncode)

    def children(self) -> list[int]:
        """Pids of its child processes."""
        return [child.pid for child in psutil.Process(self.pid).children()]


@dataclass
class Stage:
    """A Redis, a local Feishu, and the actors a scenario calls for."""

    directory: Path
    redis_server: EmbeddedRedis
    feishu: LocalFeishu
    actors: list[Actor] = field(default_factory=list)

    @property
    def keys(self) -> Keys:
        return Keys(APP_ID)

    @property
    def deeds_file(self) -> Path:
        return self.directory / "deeds.jsonl"

    @contextmanager
    def redis(self) -> Iterator[Redis]:
        """A client of the scenario's own."""
        client = Redis.from_url(self.redis_server.url, protocol=2)
        try:
            yield client
        finally:
            client.close()

    def environment(self, **settings: Any) -> dict[str, str]:
        """What an actor is told; keyword `lease_duration=2` becomes FLYBRIDGE_LEASE_DURATION."""
        told = {
            "app_id": APP_ID,
            "app_secret": APP_SECRET,
            "domain": self.feishu.url,
            "redis_url": self.redis_server.url,
            "handlers": HANDLERS,
            "event_lease": 2,
            "lease_duration": 2,
            "renew_deadline": 1.2,
            "retry_period": 0.3,
            "unhandled_after": 1,
            "log_format": "json",
            **{name: value for name, value in settings.items() if name.islower()},
        }
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FLYBRIDGE_", "OTEL_"))
        }
        here = Path(__file__).parent
        return {
            **clean,
            **{f"FLYBRIDGE_{name.upper()}": str(value) for name, value in told.items()},
            **{name: str(value) for name, value in settings.items() if name.isupper()},
            "PYTHONPATH": os.pathsep.join([str(here), str(here.parent.parent)]),
            "PYTHONUNBUFFERED": "1",
            "DEEDS": str(self.deeds_file),
        }

    def start(self, name: str, *arguments: str, **settings: Any) -> Actor:
        """Start `flybridge <arguments>`; upper-case settings are plain environment variables."""
        return self.run(name, FLYBRIDGE, *arguments, **settings)

    def run(self, name: str, *command: str, **settings: Any) -> Actor:
        """Start any command in the actors' environment."""
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment(**settings),
                cwd=self.directory,
                preexec_fn=die_with_parent,
            )
        actor = Actor(name, process, log)
        self.actors.append(actor)
        return actor

    def bridge(self, name: str = "bridge-1", **settings: Any) -> Actor:
        return self.start(name, "run", **settings)

    async def leader(self, name: str = "bridge-1", **settings: Any) -> Actor:
        """A bridge that leads and is connected."""
        bridge = self.bridge(name, **settings)
        await bridge.logged("feishu.connected")
        return bridge

    def worker(self, name: str = "worker-1", *arguments: str, **settings: Any) -> Actor:
        """A worker; two processes by prefork unless told otherwise."""
        return self.start(name, "worker", *(arguments or ("--concurrency", "2")), **settings)

    async def ready_worker(self, name: str = "worker-1", *arguments: str, **settings: Any) -> Actor:
        worker = self.worker(name, *arguments, **settings)
        await worker.logged("intake.started")
        return worker

    async def bridge_and_worker(self, *arguments: str, **settings: Any) -> Actor:
        """Start a leader and a worker side by side, and return the worker when both are ready."""
        worker = self.worker("worker-1", *arguments, **settings)
        await self.leader(**settings)
        await worker.logged("intake.started")
        return worker

    def push(self, *envelopes: dict[str, Any]) -> list[str]:
        """Have the local Feishu push these events; their ids, in this order."""
        return [self.feishu.push(envelope).event_id for envelope in envelopes]

    async def leader_standby_worker(self, **settings: Any) -> tuple[Actor, Actor]:
        """Two bridges and a worker, started together and ready; the leader comes first."""
        worker = self.worker()
        bridges = [self.bridge(name, **settings) for name in ("bridge-1", "bridge-2")]
        await eventually(lambda: all(each.lines("bridge.started") for each in bridges))
        await eventually(lambda: any(each.lines("feishu.connected") for each in bridges))
        await worker.logged("intake.started")
        leader, standby = sorted(bridges, key=lambda each: not each.lines("feishu.connected"))
        return leader, standby

    def deeds(self, deed: str = "", **fields: Any) -> list[dict[str, Any]]:
        """What handlers wrote down, in order: deed, handler, event_id, attempt, pid, time."""
        if not self.deeds_file.exists():
            return []
        # A line that is being written may be there in part.
        lines = self.deeds_file.read_text().rpartition("\n")[0].splitlines()
        records = [json.loads(line) for line in lines]
        return [
            record
            for record in records
            if (not deed or record["deed"] == deed)
            and all(record.get(name) == value for name, value in fields.items())
        ]

    def counted(self, deed: str = "finished") -> Counter[str]:
        """Event id -> how often a handler did this."""
        return Counter(record["event_id"] for record in self.deeds(deed))

    def state(self, event_id: str, group: str = "workers") -> str:
        """What Redis has recorded: running, retry, done, dead, or nothing yet."""
        with self.redis() as redis:
            state: Any = redis.hget(self.keys.state(group, event_id), "state")
        return state.decode() if state else ""

    def consumers(self, event_type: str, group: str = "workers") -> list[dict[str, Any]]:
        """The consumers of a stream's group: name, pending, idle, inactive."""
        with self.redis() as redis:
            found: Any = redis.xinfo_consumers(self.keys.stream(event_type), group)
        return [dict(each) for each in found]

    def pending(self, event_type: str = "im.message.receive_v1", group: str = "workers") -> int:
        """Entries of a stream that workers of the group have read and not acknowledged."""
        return sum(int(each["pending"]) for each in self.consumers(event_type, group))

    def states(self, event_ids: list[str], group: str = "workers") -> Counter[str]:
        """State -> how many of these events are in it."""
        with self.redis() as redis, redis.pipeline(transaction=False) as pipeline:
            for event_id in event_ids:
                pipeline.hget(self.keys.state(group, event_id), "state")
            states: list[Any] = pipeline.execute()
        return Counter(state.decode() if state else "" for state in states)

    def unsettled(self, group: str = "workers") -> int:
        """Entries that the group has not read or not acknowledged."""
        total = 0
        with self.redis() as redis:
            types: Any = redis.smembers(self.keys.types)
            for name in types:
                stream = self.keys.stream(name.decode())
                groups: Any = redis.xinfo_groups(stream)
                ours = [each for each in groups if each["name"] == group.encode()]
                if not ours:
                    total += int(redis.xlen(stream))
                    continue
                total += int(ours[0]["pending"]) + int(ours[0]["lag"] or 0)
        return total

    def entries(self, event_type: str = "im.message.receive_v1") -> list[dict[str, str]]:
        """The entries of one stream, oldest first."""
        with self.redis() as redis:
            raw: Any = redis.xrange(self.keys.stream(event_type))
        return [
            {name.decode(): value.decode() for name, value in fields.items()} for _, fields in raw
        ]

    def dead_letters(self, group: str = "workers") -> list[dict[str, str]]:
        with self.redis() as redis:
            raw: Any = redis.xrange(self.keys.dead(group))
        return [
            {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
            for _, fields in raw
        ]

    async def settled(self, event_ids: list[str], within: float = PATIENCE) -> None:
        """Wait until Redis holds an end for each event, and no entry is left."""
        await eventually(lambda: self.states(event_ids).keys() <= {"done", "dead"}, within)
        await eventually(lambda: self.unsettled() == 0, within)

    @asynccontextmanager
    async def traffic(self, every: float = 0.02) -> AsyncIterator[list[Push]]:
        """Push fresh message events, one every so many seconds, until the block ends."""
        pushes: list[Push] = []
        flowing = asyncio.create_task(self._flow(pushes, every))
        try:
            yield pushes
        finally:
            flowing.cancel()

    async def _flow(self, pushes: list[Push], every: float) -> None:
        while True:
            pushes.append(self.feishu.push(message()))
            await asyncio.sleep(every)

    async def went_through(self, pushes: list[Push], within: float = PATIENCE) -> None:
        """Wait until all are acked and done; then each is in its stream once, and no other."""
        await eventually(lambda: all(push.acked for push in pushes), within)
        event_ids = [push.event_id for push in pushes]
        await self.settled(event_ids, within)
        assert Counter(entry["event_id"] for entry in self.entries()) == Counter(event_ids)
        assert self.states(event_ids).keys() == {"done"}

    def end(self) -> None:
        """Kill what still runs, children included."""
        for actor in self.actors:
            if actor.process.poll() is None:
                family = psutil.Process(actor.pid).children(recursive=True)
                actor.process.send_signal(signal.SIGCONT)
                actor.process.kill()
                for child in family:
                    if child.is_running():
                        child.kill()
            actor.process.wait()


def time_of(line: dict[str, Any]) -> float:
    """Unix seconds of a log line."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def message(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A message event with a fresh id; `acting` reads the text as a stage direction."""
    return sample("im.message.receive_v1", overrides={"message.content": text, **fields})
