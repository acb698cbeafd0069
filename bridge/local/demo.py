"""`flybridge demo`: shows the main job on this machine, and that no event is lost or doubled.

Two bridges, a worker, a local Feishu. One event is pushed fifty times, one handler fails at first,
the leader is killed in the middle. At the end, what Feishu pushed, what it got acks for, what lies
in Redis and what handlers wrote down must agree.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from redis.asyncio import Redis

from flybridge.bridge.errors import EXIT_LOST, OK, BridgeError
from flybridge.bridge.local import actors
from flybridge.bridge.local.actors import Actor
from flybridge.bridge.local.collector import LocalCollector
from flybridge.bridge.local.feishu.pushes import Push
from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET, LocalFeishu
from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.samples import sample

GROUP = "workers"
TYPES = ("im.message.receive_v1", "im.chat.updated_v1", "contact.user.created_v3")
FLAKY = "im.message.reaction.created_v1"
REPEATED = 50
STREAM = 300
"""Events that flow while the leader is killed."""

STEP_TIMEOUT = 30.0
"""Seconds after which a step that has not happened counts as failed."""

Say = Callable[[str], object]


class DemoFailed(BridgeError):
    """A step of the demo did not happen."""

    exit_code = EXIT_LOST


@dataclass(slots=True)
class Play:
    """The state of one demo, and what was seen so far."""

    directory: Path
    redis_url: str
    feishu: LocalFeishu
    collector: LocalCollector
    say: Say
    began: float = field(default_factory=time.monotonic)
    bridges: list[Actor] = field(default_factory=list)
    workers: list[Actor] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    repeats: int = 0

    def tell(self, what: str) -> None:
        """Print a line of the story, with the seconds since its beginning."""
        self.say(f"  {time.monotonic() - self.began:5.1f} s  {what}")

    @property
    def deeds(self) -> list[dict[str, Any]]:
        """What the handlers wrote down."""
        file = self.directory / "deeds.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def did(self, deed: str) -> Counter[str]:
        """How often the handlers wrote this deed down, by event id."""
        return Counter(each["event_id"] for each in self.deeds if each["deed"] == deed)

    def start(self, name: str, *arguments: str) -> Actor:
        """Start one of our processes, with short leases: a demo should not take long."""
        environment = {
            "FLYBRIDGE_APP_ID": APP_ID,
            "FLYBRIDGE_APP_SECRET": APP_SECRET,
            "FLYBRIDGE_DOMAIN": self.feishu.url,
            "FLYBRIDGE_REDIS_URL": self.redis_url,
            "FLYBRIDGE_HANDLERS": "flybridge.bridge.local.feishu.witness",
            "FLYBRIDGE_GROUP": GROUP,
            "FLYBRIDGE_LEASE_DURATION": "2",
            "FLYBRIDGE_RENEW_DEADLINE": "1.2",
            "FLYBRIDGE_RETRY_PERIOD": "0.3",
            "FLYBRIDGE_EVENT_LEASE": "3",
            "FLYBRIDGE_LOG_FORMAT": "json",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "DEMO_DEEDS": str(self.directory / "deeds.jsonl"),
        }
        return actors.start(name, arguments, environment, self.directory / f"{name}.log")


async def demo(say: Say) -> int:
    """Run the demo and print the summary.

    Returns:
        0, or 1 if an event was lost or handled twice.

    Raises:
        DemoFailed: a step did not happen; the message holds the logs of the processes.
    """
    with (
        TemporaryDirectory(prefix="flybridge-demo-") as directory,
        EmbeddedRedis() as redis,
        LocalCollector() as collector,
    ):
        async with LocalFeishu(clock_scale=50) as feishu:
            play = Play(Path(directory), redis.url, feishu, collector, say)
            try:
                return await _perform(play, redis)
            finally:
                # In a thread: the local Feishu must go on answering while they say goodbye.
                await asyncio.to_thread(actors.stop, [*play.workers, *play.bridges])


async def _perform(play: Play, redis: EmbeddedRedis) -> int:
    play.say("flybridge demo: nothing leaves this machine, nothing is kept\n")
    play.say(f"  Redis    {redis.url}  (embedded, in memory)")
    play.say(f"  Feishu   {play.feishu.url}  (local, on the real protocol)\n")
    play.tell("two bridges and a worker start; the bridges compete for the lease")
    leader, standby = await _open(play)
    await _push_one_again_and_again(play)
    await _kill_the_leader(play, leader, standby)
    await _let_everything_end(play)
    return await _judge(play)


async def _open(play: Play) -> tuple[Actor, Actor]:
    play.bridges = [play.start(f"bridge-{number}", "run") for number in (1, 2)]
    play.workers = [play.start("worker", "worker", "--concurrency", "2")]
    await _until(play, "a bridge leads", lambda: _leaders(play))
    leader = _leaders(play)[0]
    standby = next(bridge for bridge in play.bridges if bridge is not leader)
    play.tell(f"{leader.name} leads and is connected to Feishu; {standby.name} stands by")
    await _until(play, "the worker reads", lambda: play.workers[0].logged("intake.started"))
    play.tell("worker reads the streams, two processes run handlers")
    return leader, standby


async def _push_one_again_and_again(play: Play) -> None:
    envelope = sample("im.message.receive_v1")
    repeated = [play.feishu.push(envelope) for _ in range(REPEATED)]
    play.pushes.append(repeated[0])
    play.repeats += REPEATED - 1
    play.tell(f"Feishu pushes one event {REPEATED} times, as it does when acks get lost")
    failing = sample(FLAKY)
    play.pushes.append(play.feishu.push(failing))
    event_id = failing["header"]["event_id"]
    await _until(play, "the retry", lambda: play.did("recovered")[event_id])
    play.tell("a handler failed, was tried again when due, and succeeded")


async def _kill_the_leader(play: Play, leader: Actor, standby: Actor) -> None:
    for number in range(STREAM):
        play.pushes.append(play.feishu.push(sample(TYPES[number % len(TYPES)])))
        if number == STREAM // 3:
            leader.kill()
            killed = time.monotonic()
            play.tell(f"kill -9 {leader.name}, with events on the way")
        # A steady flow, and a turn for the local Feishu.
        await asyncio.sleep(0.002)
    await _until(play, "the standby leads", lambda: standby.logged("feishu.connected"))
    took = time.monotonic() - killed
    play.tell(f"{standby.name} leads and is connected, {took:.1f} s after the kill")


async def _let_everything_end(play: Play) -> None:
    await _until(play, "acks", lambda: all(push.acked for push in play.pushes))
    play.tell("every event has its ack")
    ids = {push.event_id for push in play.pushes}
    await _until(play, "handlers", lambda: ids <= set(play.did("handled")))
    redis = Redis.from_url(play.redis_url)
    try:
        await _until_settled(play, redis)
    finally:
        await redis.aclose()
    play.tell("every event is settled in Redis")


async def _until_settled(play: Play, redis: Redis) -> None:
    keys, deadline = Keys(APP_ID), time.monotonic() + STEP_TIMEOUT
    states = [keys.state(GROUP, push.event_id) for push in play.pushes]
    while True:
        async with redis.pipeline(transaction=False) as pipeline:
            for state in states:
                pipeline.hget(state, "state")
            if all(value == b"done" for value in await pipeline.execute()):
                return
        if time.monotonic() > deadline:
            raise DemoFailed(_report(play, "events that are settled"))
        await asyncio.sleep(0.05)


async def _judge(play: Play) -> int:
    published = await _published(play)
    handled, wanted = play.did("handled"), {push.event_id for push in play.pushes}
    lost = {event_id for event_id in wanted if not handled[event_id] or not published[event_id]}
    doubled = {event_id for event_id in wanted if handled[event_id] > 1 or published[event_id] > 1}
    acked = sum(push.acked for push in play.pushes)
    _print_trace(play)
    play.say("\n  What happened\n")
    for label, number in (
        ("pushes by Feishu", len(play.pushes) + play.repeats + _repushed(play)),
        ("  different events", len(wanted)),
        ("  acked", acked),
        ("events in Redis streams", sum(published.values())),
        ("events handled", sum(handled.values())),
        ("  tried again after a failure", sum(play.did("failed").values())),
        ("duplicates suppressed", play.repeats + _repushed(play)),
        ("leaders killed and replaced", 1),
        ("LOST", len(lost)),
        ("HANDLED TWICE", len(doubled)),
    ):
        play.say(f"    {label:<32}{number:>6}")
    if lost or doubled:
        play.say("\n  Something is wrong: this is not what Flybridge promises.")
        return EXIT_LOST
    play.say("\n  None lost, none handled twice.")
    play.say("  Next: write a handler and run it by `flybridge dev`; the README shows how.")
    return OK


async def _published(play: Play) -> Counter[str]:
    # Any: redis-py's types hold every reply that any option could bring.
    redis: Any = Redis.from_url(play.redis_url)
    keys, found = Keys(APP_ID), Counter[str]()
    try:
        for name in await redis.smembers(keys.types):
            for _, fields in await redis.xrange(keys.stream(name.decode())):
                found[fields[b"event_id"].decode()] += 1
    finally:
        await redis.aclose()
    return found


def _print_trace(play: Play) -> None:
    """Print the trace of the event whose handler failed at first."""
    failing = next(push for push in play.pushes if push.event_type == FLAKY)
    spans = [
        span
        for span in play.collector.spans()
        if span.attributes.get("feishu.event_id") == failing.event_id
    ]
    if not spans:
        return
    play.say("\n  The way of the event whose handler failed first, as one trace\n")
    for line in play.collector.tree(spans[0].trace_id).splitlines():
        play.say(f"    {line}")


def _leaders(play: Play) -> list[Actor]:
    return [bridge for bridge in play.bridges if bridge.logged("feishu.connected")]


def _repushed(play: Play) -> int:
    return sum(max(0, _sent(push) - 1) for push in play.pushes[1:])


def _sent(push: Push) -> int:
    return sum(attempt.ending != "unreachable" for attempt in push.attempts)


async def _until(play: Play, what: str, happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + STEP_TIMEOUT
    while not happened():
        if time.monotonic() > deadline or not all(worker.alive for worker in play.workers):
            raise DemoFailed(_report(play, what))
        await asyncio.sleep(0.02)


def _report(play: Play, what: str) -> str:
    logs = [
        f"--- {actor.name}\n{actor.log.read_text()[-2000:]}"
        for actor in (*play.bridges, *play.workers)
        if actor.log
    ]
    return f"The demo waited {STEP_TIMEOUT:g} s in vain for: {what}.\n" + "\n".join(logs)
