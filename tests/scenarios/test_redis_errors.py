"""Redis answers, but with an error: everyone waits it out, says so once, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.chaos.proxy import Match
from tests.scenarios.behind import BEARS_TROUBLE, Pair, Watch, pair_behind_proxies
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TROUBLE = 1.2
"""Seconds it lasts."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair_behind_proxies(tmp_path_factory.mktemp("pair"), **BEARS_TROUBLE) as pair:
        pair.push_some()
        await pair.all_settled()
        yield pair


def writes(command: list[bytes]) -> bool:
    return command[0].upper() in WRITES


WRITES = frozenset(
    b"EVALSHA EVAL XADD XREADGROUP XCLAIM XACK ZREM HSET HDEL SADD SREM SET DEL BRPOP".split()
)

ERRORS: dict[str, tuple[bytes, Match | None]] = {
    "LOADING": (b"Redis is loading the dataset in memory", None),
    "BUSY": (b"Redis is busy running a script. You can only call SCRIPT KILL.", None),
    "MISCONF": (b"Errors writing to the AOF file: No space left on device", writes),
    "READONLY": (b"You can't write against a read only replica.", writes),
    "NOREPLICAS": (b"Not enough good replicas to write.", writes),
    "MASTERDOWN": (b"Link with MASTER is down and replica-serve-stale-data is set to 'no'.", None),
    "CLUSTERDOWN": (b"The cluster is down", None),
    "TRYAGAIN": (b"Multiple keys request during rehashing of slot", None),
    "NOPERM": (b"User default has no permissions to run the 'evalsha' command", "EVALSHA"),
    "ERR": (b"max number of clients reached", None),
}


async def trouble() -> None:
    since = time.monotonic()
    await eventually(lambda: time.monotonic() - since > TROUBLE)


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_that_passes_costs_nothing_and_is_told_once(pair: Pair, name: str) -> None:
    text, match = ERRORS[name]
    watch = Watch(pair)
    for proxy in pair.proxies:
        proxy.answer(b"-" + name.encode() + b" " + text, match)
        if name == "ERR":
            proxy.cut()
    pair.push_some()
    await trouble()
    for proxy in pair.proxies:
        proxy.answer(None)

    await watch.recovers()
    told = {"redis.lost", "redis.refused"} & watch.told().keys()
    denied = ["redis.denied"] if name == "NOPERM" else []  # with the cure, for the lease
    await watch.is_told_once(
        {"publish.failed", *denied, *told},
        {"publish.recovered", *(["redis.recovered"] if told else [])},
    )
