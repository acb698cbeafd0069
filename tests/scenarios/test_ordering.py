"""Order: a chat's events are handled one at a time and as they came, by however many workers."""

from __future__ import annotations

import random
import time
from typing import Any

from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

TYPE = "im.message.bot_muted_v1"
"""Whose handler in `orderly` is ordered by the chat."""

CHATS = [f"oc_{number}" for number in range(5)]

Span = tuple[float, float]
"""Start and end of one attempt."""


def said(chat: str, text: str = "hello") -> dict[str, Any]:
    envelope = message(text, **{"message.chat_id": chat})
    envelope["header"]["event_type"] = TYPE
    return envelope


def attempts(stage: Stage) -> dict[str, list[Span]]:
    """Event id -> its attempts in order; one that did not finish ended when it began."""
    found: dict[str, list[Span]] = {}
    for deed in stage.deeds(handler="converse"):
        spans = found.setdefault(deed["event_id"], [])
        if deed["deed"] == "started":
            spans.append((deed["time"], deed["time"]))
        else:
            spans[-1] = (spans[-1][0], deed["time"])
    return found


def out_of_order(event_ids: list[str], spans: dict[str, list[Span]]) -> list[str]:
    """Events that began before all attempts at the one before them had ended."""
    ended, found = 0.0, []
    for event_id in event_ids:
        if spans[event_id][0][0] < ended:
            found.append(event_id)
        ended = spans[event_id][-1][1]
    return found


def overlapping(one: list[str], other: list[str], spans: dict[str, list[Span]]) -> bool:
    return any(
        a[0] < b[1] and b[0] < a[1]
        for a in (span for each in one for span in spans[each])
        for b in (span for each in other for span in spans[each])
    )


async def test_chats_keep_their_order_through_retries_and_a_killed_worker(stage: Stage) -> None:
    chance = random.Random(7)
    texts = ["hello"] * 6 + ["fail 1", "fail 2", "later 0.2", "slow 0.05"]
    workers = [
        stage.worker("worker-1", "--concurrency", "2", handlers="orderly"),
        stage.worker("worker-2", "--concurrency", "2", handlers="orderly"),
        stage.worker("worker-3", "--pool", "threads", "--concurrency", "4", handlers="orderly"),
    ]
    await stage.leader(handlers="orderly")
    for worker in workers:
        await worker.logged("intake.started")
    pushed: dict[str, list[str]] = {chat: [] for chat in CHATS}
    for _ in range(30):
        for chat in chance.sample(CHATS, len(CHATS)):
            pushed[chat] += stage.push(said(chat, chance.choice(texts)))
        if len(pushed[CHATS[0]]) == 10:
            await eventually(lambda: len(stage.deeds("finished")) > 20)
            workers[0].kill()

    every = [event_id for event_ids in pushed.values() for event_id in event_ids]
    await stage.settled(every)

    spans = attempts(stage)
    assert {chat: out_of_order(pushed[chat], spans) for chat in CHATS} == {c: [] for c in CHATS}
    assert stage.counted().keys() == set(every)
    assert stage.states(every).keys() == {"done"}
    pids = {deed["pid"] for deed in stage.deeds("finished")}
    assert len(pids) > 2, "more than one worker took part"
    with stage.redis() as redis:
        assert list(redis.scan_iter(stage.keys.order("workers") + ":*")) == []


async def test_different_chats_are_handled_side_by_side(stage: Stage) -> None:
    await stage.bridge_and_worker("--pool", "threads", "--concurrency", "4", handlers="orderly")
    one = stage.push(*(said("oc_1", "slow 0.3") for _ in range(3)))
    other = stage.push(*(said("oc_2", "slow 0.3") for _ in range(3)))

    await stage.settled([*one, *other])

    spans = attempts(stage)
    assert overlapping(one, other, spans)
    assert out_of_order(one, spans) == out_of_order(other, spans) == []


async def test_a_retry_holds_up_its_own_chat_only(stage: Stage) -> None:
    await stage.bridge_and_worker(handlers="orderly")
    blocked = stage.push(said("oc_1", "later 1"), said("oc_1"))
    free = stage.push(*(said("oc_2") for _ in range(20)))

    await eventually(lambda: stage.states(free).keys() == {"done"})
    assert stage.counted("started") == dict.fromkeys([blocked[0], *free], 1)
    await stage.settled([*blocked, *free])
    assert out_of_order(blocked, attempts(stage)) == []


async def test_an_ordered_event_starts_as_soon_as_another(stage: Stage) -> None:
    await stage.bridge_and_worker(handlers="orderly")
    await stage.settled(stage.push(said("oc_1")))
    delays = []
    for number in range(10):
        pushed = time.time()
        (event_id,) = stage.push(said(f"oc_{number}"))
        await stage.settled([event_id])
        delays.append(stage.deeds("started", event_id=event_id)[0]["time"] - pushed)
    assert sorted(delays)[5] < 0.1
