"""Promise 2, where it is subtlest: Redis did what it was told, and nobody heard that it did.

Every command that a bridge and a worker send is in one of the lists here, the last test sees to
it. Each loses its reply once, which the client's own retry is for, and where the code above the
client has a say, twice in a row.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pytest
import pytest_asyncio

from flybridge.bridge.store.client import sync_client
from flybridge.bridge.store.scripts import ROOT, Call, load, run_all
from flybridge.bridge.store.streams import Entry
from flybridge.workers.backlog import quarantine
from flybridge.workers.claim.claims import Pending, Run
from flybridge.workers.claim.redis_clock import RedisClock
from flybridge.workers.claim.stalls import Stalls
from flybridge.workers.group.beginning import Beginning
from flybridge.workers.intake.consumer import Consumer
from flybridge.workers.intake.mending import StreamMending
from flybridge.workers.intake.reader import StreamReader
from tests.chaos.conversation import Command
from tests.chaos.proxy import CutProxy, Match
from tests.scenarios.behind import TYPE, Pair, pair_behind_proxies, proxy_of
from tests.scenarios.test_business_key import edited
from tests.scenarios.test_ordering import attempts, out_of_order, said
from tests.waiting import eventually

in_one_loop = pytest.mark.asyncio(loop_scope="module")

PROMPT = 5.0
"""Seconds until a command is sent that comes by itself."""

SETTLED = 3.5
"""Seconds until all is as before; less than an event lease, so that nobody waits for one."""

Provoke = Callable[[Pair], object]

DURATIONS = {"event_lease": 4, "retention": 1}
"""Seconds: a worker renews and recovers every third of it, a bridge trims every half."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    told: dict[str, Any] = {**DURATIONS, "handlers": "orderly"}
    async with pair_behind_proxies(tmp_path_factory.mktemp("pair"), **told) as pair:
        pair.push_some()
        await pair.all_settled()
        yield pair


def nothing(pair: Pair) -> None:
    """It comes by itself."""


def push(pair: Pair) -> None:
    pair.push_some()


def cut_bridge(pair: Pair) -> None:
    pair.bridge_proxy.cut()
    pair.push_some()


def cut_worker(pair: Pair) -> None:
    pair.worker_proxy.cut()


def forget_scripts(pair: Pair) -> None:
    with pair.stage.redis() as redis:
        redis.script_flush()
    pair.push_some()


def forget_groups(pair: Pair) -> None:
    with pair.stage.redis() as redis:
        redis.xgroup_destroy(pair.stage.keys.stream(TYPE), "workers")


def leave_a_stale_bridge_on_the_board(pair: Pair) -> None:
    with pair.stage.redis() as redis:
        redis.hset(pair.stage.keys.bridges, "dead-1", '{"at": 1}')


def send_garbage(pair: Pair) -> None:
    pair.stage.feishu.faults.send_raw(data=b"not protobuf at all")


def hold_an_event(pair: Pair) -> None:
    pair.push("slow 2.2")


def hold_past_the_retention(pair: Pair) -> None:
    pair.push("slow 2.2")
    pair.push_some()


def hold_past_the_retention_without_scripts(pair: Pair) -> None:
    hold_past_the_retention(pair)
    forget_scripts(pair)


def fail_one(pair: Pair) -> None:
    pair.push("fail 1")


def copy_an_entry(pair: Pair) -> None:
    """What a bridge never does: the same event a second time in its stream."""
    done = pair.pushes[0]
    entry = {"event_id": done.event_id, "event_type": TYPE, "envelope": done.payload}
    add(pair, entry)


def write_by_hand(pair: Pair) -> None:
    add(pair, {"written": "by hand"})


def add(pair: Pair, fields: dict[str, Any]) -> None:
    with pair.stage.redis() as redis:
        redis.xadd(pair.stage.keys.stream(TYPE), fields)
    pair.added_by_hand += 1


def leave_a_stray_retry(pair: Pair) -> None:
    """Of an entry that is no longer pending."""
    with pair.stage.redis() as redis:
        keys = pair.stage.keys
        redis.zadd(keys.retries_of("workers", keys.stream(TYPE)), {"1-1": 1})


def lose_what_is_read(pair: Pair) -> None:
    pair.worker_proxy.drop_reply("XREADGROUP", times=2)
    pair.push_some()


def recover_own(command: Command) -> bool:
    return command[0] == b"EVALSHA" and b"own" in command


@dataclass(frozen=True)
class Loss:
    """A command whose reply is lost: twice in a row, for a client's own retry hides one.

    Once where the command is not sent again, for it was carried out.
    """

    match: Match
    provoke: Provoke = nothing
    times: int = 2

    def __str__(self) -> str:
        name = self.match if isinstance(self.match, str) else self.match.__name__
        return f"{name} x{self.times}" if self.times else "none"

    def arm(self, proxy: CutProxy) -> None:
        proxy.drop_reply(self.match, times=self.times)


NO_LOSS = Loss("", times=0)

BRIDGE = [
    Loss("EVALSHA publish", push, times=1),
    Loss("EVALSHA publish", push),
    Loss("SCRIPT LOAD", cut_bridge),
    Loss("EVALSHA lease"),
    Loss("EVAL lease", forget_scripts),
    Loss("EVALSHA keep_letter", send_garbage),
    Loss("HSET"),
    Loss("HGETALL"),
    Loss("HDEL", leave_a_stale_bridge_on_the_board),
    Loss("INFO"),
    Loss("SMEMBERS"),
    Loss("EVALSHA trim"),
    Loss("EVAL trim", forget_scripts),
    Loss("XRANGE", hold_past_the_retention),
    Loss("EVALSHA trim_behind", hold_past_the_retention),
    Loss("EVAL trim_behind", hold_past_the_retention_without_scripts),
    Loss("CLIENT SETINFO", cut_bridge),
]

WORKER = [
    Loss("SMEMBERS"),
    Loss("EVALSHA group", forget_groups),
    Loss("EVALSHA subscribe"),
    Loss("XREADGROUP", times=1),
    Loss("XREADGROUP"),
    Loss("EVALSHA claim_fresh", push, times=1),
    Loss("EVALSHA claim_fresh", push),
    Loss("EVALSHA claim", fail_one, times=1),
    Loss("EVALSHA claim", fail_one),
    Loss("EVALSHA settle_done", push, times=1),
    Loss("EVALSHA settle_done", push),
    Loss("EVALSHA settle", fail_one, times=1),
    Loss("EVALSHA settle", fail_one),
    Loss("EVALSHA renew", hold_an_event),
    Loss("EVALSHA due"),
    Loss("EVALSHA recover"),
    Loss(recover_own, lose_what_is_read),
    Loss("EVALSHA bury_unreadable", write_by_hand),
    Loss("SCRIPT LOAD", forget_scripts),
    Loss("XCLAIM", hold_an_event, times=1),
    Loss("XACK", copy_an_entry, times=1),
    Loss("ZREM", leave_a_stray_retry, times=1),
    Loss("CLIENT SETINFO", cut_worker),
]

ORDERED = [
    Loss("EVALSHA line_up", times=1),
    Loss("EVALSHA line_up"),
    Loss("EVALSHA claim"),
    Loss("EVALSHA advance", times=1),
    Loss("EVALSHA advance"),
    Loss("EVALSHA due", times=1),
    Loss("XREAD", times=1),
]
"""What a worker sends for the sake of an order or a business key; each as some are pushed."""

CELERY = [
    "CLIENT MAINT_NOTIFICATIONS",
    "HELLO",
    "PING",
    "SADD",
    "SREM",
    "DEL",
    "LLEN",
    "PSUBSCRIBE",
    "PUBLISH",
    "EVALSHA kombu.refresh",
]
"""What Celery's own connections send when they are made anew; each loses its reply once."""

STARTS = {
    "bridge": ["PING", "INFO", "CONFIG GET"],
    "worker": ["INFO", "CONFIG GET", "SET", "TIME"],
}
"""Command sent at a start only; each loses its reply once."""

STOPS = {
    "bridge": ["EVALSHA lease", "HDEL"],
    "worker": ["EVALSHA leave", "ZREM", "PUNSUBSCRIBE"],
}
"""What is sent at a stop."""

OF_THE_COMMAND_LINE = {"replay", "purge", "scan", "leave_group"}
"""Scripts that neither a bridge nor a worker runs."""

PIECES = {"checked"}
"""What other scripts begin with; none by themselves."""

WITHIN_OTHERS = {"MULTI", "EXEC"}
"""The reply of EXEC is lost with what it carries out."""

HOUSEKEEPING = {"ZRANGE", "EVALSHA lock.release", "SCRIPT EXISTS", "EVALSHA kombu.sweep"}
"""kombu's, of one worker at a time, every so many seconds."""

RARE = {
    "EVALSHA sweep",
    "EVALSHA isolate",
    "EVALSHA begin",
    "EVALSHA count",
    "EVALSHA clock",
    "EVALSHA mend_pending",
    "EVALSHA mend_retries",
    "EVALSHA watch",
    "EVALSHA write_when_full",
    "XLEN",
}
"""Sent once in minutes, by the first worker of a group, for an event that kills its process, when
the clock of Redis went back, or when Redis is full; here called by hand."""

LISTED = {
    *(str(loss.match) for loss in BRIDGE + WORKER + ORDERED),
    *(name for commands in (STARTS, STOPS) for names in commands.values() for name in names),
    *CELERY,
    *WITHIN_OTHERS,
    *HOUSEKEEPING,
    *RARE,
}


@in_one_loop
@pytest.mark.parametrize(
    ("of_bridge", "of_worker"), [*zip_longest(BRIDGE, WORKER, fillvalue=NO_LOSS)], ids=str
)
async def test_a_lost_reply_costs_no_event_and_doubles_none(
    pair: Pair, of_bridge: Loss, of_worker: Loss
) -> None:
    for proxy in pair.proxies:
        proxy.disarm()
    of_bridge.arm(pair.bridge_proxy)
    of_worker.arm(pair.worker_proxy)
    of_bridge.provoke(pair)
    of_worker.provoke(pair)
    await eventually(lambda: not any(proxy.armed for proxy in pair.proxies), PROMPT)

    pair.push_some()
    await pair.all_settled(SETTLED)


@in_one_loop
@pytest.mark.parametrize("loss", ORDERED, ids=str)
async def test_a_lost_reply_breaks_no_order_and_no_business_key(pair: Pair, loss: Loss) -> None:
    stage = pair.stage
    for proxy in pair.proxies:
        proxy.disarm()
    chat, message_id = f"oc {loss}", f"om {loss}"
    talk = stage.push(*(said(chat, text) for text in ("hello", "fail 1", "hello", "hello")))
    loss.arm(pair.worker_proxy)
    talk += stage.push(*(said(chat) for _ in range(4)))
    edits = stage.push(*(edited(message_id) for _ in range(3)))
    await eventually(lambda: not pair.worker_proxy.armed, PROMPT)

    await stage.settled([*talk, *edits], SETTLED)
    assert out_of_order(talk, attempts(stage)) == []
    counted = stage.counted()
    assert {each: counted[each] for each in talk} == dict.fromkeys(talk, 1)
    assert sum(counted[each] for each in edits) == 1


@in_one_loop
async def test_celerys_own_connections_bear_lost_replies(pair: Pair) -> None:
    pair.worker_proxy.disarm()
    for name in CELERY:
        pair.worker_proxy.drop_reply(name)
    pair.worker_proxy.cut()
    await eventually(lambda: not pair.worker_proxy.armed)
    pair.push_some()
    await pair.all_settled(SETTLED)


@in_one_loop
async def test_a_start_and_a_stop_bear_lost_replies(pair: Pair) -> None:
    stage = pair.stage
    async with proxy_of(stage) as bridge_proxy, proxy_of(stage) as worker_proxy:
        proxies = {"bridge": bridge_proxy, "worker": worker_proxy}
        lose(proxies, STARTS)
        bridge = stage.bridge("bridge-2", redis_url=bridge_proxy.url)
        worker = stage.worker("worker-2", redis_url=worker_proxy.url)
        await bridge.logged("bridge.started")
        await worker.logged("intake.started")
        pair.push_some()
        await pair.all_settled()
        assert armed(proxies) == set()

        lose(proxies, STOPS)
        bridge.send(signal.SIGTERM)
        worker.send(signal.SIGTERM)
        assert [await bridge.ended(), await worker.ended()] == [0, 0]
        assert armed(proxies) == set()
        pair.others_saw += bridge_proxy.commands
        pair.others_saw += worker_proxy.commands
    pair.push_some()
    await pair.all_settled()
    assert stage.pending(TYPE) == 0


def lose(proxies: dict[str, CutProxy], commands: dict[str, list[str]]) -> None:
    for actor, names in commands.items():
        for name in names:
            proxies[actor].drop_reply(name)


def armed(proxies: dict[str, CutProxy]) -> set[str]:
    return {match for proxy in proxies.values() for match in proxy.armed}


@in_one_loop
async def test_scripts_that_are_rarely_run_bear_lost_replies(pair: Pair) -> None:
    keys, proxy = pair.stage.keys, pair.worker_proxy
    entry = Entry("e", TYPE, "", "", "2.0", 0, 0, 1, "", "", b"{}")
    suspect = Run(Pending(keys.stream(TYPE), "1-1", entry), "token", 3, {})
    with pair.stage.redis() as redis:
        redis.hset(keys.state("workers", "e"), mapping={"token": "token", "alone": 2})
    client = sync_client(proxy.url)
    consumer = Consumer(client, keys, "workers", "by hand")
    reader = StreamReader(consumer, 3)
    proxy.disarm()
    for name in RARE:
        proxy.drop_reply(name)
    await asyncio.to_thread(reader.follow, [keys.stream(TYPE)])
    await asyncio.to_thread(reader.sweep)
    await asyncio.to_thread(RedisClock(client, keys, "by-hand").know)
    await asyncio.to_thread(StreamMending(consumer, 3).mend, 1)
    stalls = Stalls(client, keys, "by-hand")
    stalls.met("line", ["no line"])
    await asyncio.to_thread(stalls.look)
    write = Call(load("write_when_full"), (keys.audit,), ("XADD", "*", "who", "nobody"))
    await asyncio.to_thread(run_all, client, [write])
    assert await asyncio.to_thread(quarantine.isolate, client, keys, "workers", suspect) == 2
    beginning = Beginning(client, keys, "by-hand", "1h", None)
    await asyncio.to_thread(beginning.begin, frozenset({"*"}))
    assert not proxy.armed
    await asyncio.to_thread(client.close)
    with pair.stage.redis() as redis:
        assert redis.hgetall(keys.starts("by-hand"))
        redis.srem(keys.subscriptions, "by-hand|*")
        redis.delete(keys.state("workers", "e"))


@in_one_loop
async def test_no_command_is_left_out(pair: Pair) -> None:
    """A command that is new in the bridge, in the worker or in a library belongs into the lists."""
    seen = pair.bridge_proxy.commands + pair.worker_proxy.commands + pair.others_saw
    assert seen.keys() - LISTED == set()


def test_no_script_is_left_out() -> None:
    ours = {path.stem for path in ROOT.glob("*/*/*.lua")}
    listed = {name.partition(" ")[2] for name in LISTED if name.startswith("EVALSHA ")}
    assert ours - listed - OF_THE_COMMAND_LINE - PIECES == set()
