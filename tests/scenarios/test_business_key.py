"""A business key: what comes under two event ids is handled once, and what died is handled anew."""

from __future__ import annotations

import time
from typing import Any

from tests.scenarios.stage import Stage, message
from tests.scenarios.test_replay import flybridge
from tests.waiting import eventually

TYPE = "im.message.updated_v1"
"""With two handlers in `orderly`: `answer` is deduplicated by the message, `count` by nothing."""


ORDERED = "im.message.bot_unmuted_v1"
"""Whose handler is ordered by the chat as well."""


def edited(message_id: str, text: str = "hello") -> dict[str, Any]:
    envelope = message(text, **{"message.message_id": message_id})
    envelope["header"]["event_type"] = TYPE
    return envelope


def answered(stage: Stage) -> list[str]:
    return [deed["event_id"] for deed in stage.deeds("finished", handler="answer")]


async def test_a_message_under_many_event_ids_is_handled_once_at_once_and_later(
    stage: Stage,
) -> None:
    threads = ("--pool", "threads", "--concurrency", "4")
    second = stage.worker("worker-2", *threads, handlers="orderly")
    await stage.bridge_and_worker(handlers="orderly")
    await second.logged("intake.started")
    at_once = stage.push(*(edited("om_1", "slow 0.5") for _ in range(6)))
    other = stage.push(edited("om_2"))
    await stage.settled([*at_once, *other])
    later = stage.push(edited("om_1"))
    await stage.settled(later)

    everyone = [*at_once, *other, *later]
    assert len(answered(stage)) == 2
    assert set(answered(stage)) - set(at_once) == set(other)
    assert stage.counted("counted") == dict.fromkeys(everyone, 1)
    assert stage.states(everyone).keys() == {"done"}
    assert {deed["attempt"] for deed in stage.deeds()} == {1}


async def test_a_second_event_takes_its_place_when_the_first_became_a_dead_letter(
    stage: Stage,
) -> None:
    await stage.bridge_and_worker(handlers="orderly")
    first = stage.push(edited("om_1", "fail 9"))
    await eventually(lambda: stage.deeds("started", handler="answer"))
    waiting = stage.push(edited("om_1"))

    await stage.settled([*first, *waiting])
    again = stage.push(edited("om_1"))
    await stage.settled(again)

    assert stage.states(first).keys() == {"dead"}
    assert answered(stage) == waiting
    assert len(stage.deeds("started", handler="answer", event_id=first[0])) == 3


async def test_a_killed_worker_s_event_is_handled_once_by_whoever_comes_first(
    stage: Stage,
) -> None:
    worker = await stage.bridge_and_worker(handlers="orderly")
    first = stage.push(edited("om_1", "slow 1"))
    await eventually(lambda: stage.deeds("started", handler="answer"))
    await stage.ready_worker("worker-2", handlers="orderly")
    worker.kill()
    second = stage.push(edited("om_1"))
    pushed = time.time()

    await stage.settled([*first, *second])

    assert answered(stage) == first
    assert time.time() - pushed < 10


async def test_others_go_on_when_the_first_was_deleted_by_hand_before_its_retry(
    stage: Stage,
) -> None:
    await stage.bridge_and_worker(handlers="orderly")
    first = stage.push(edited("om_1", "later 600"))
    await eventually(lambda: stage.states(first).keys() == {"retry"})
    second = stage.push(edited("om_1"))
    with stage.redis() as redis:
        stream = stage.keys.stream(TYPE)
        await eventually(lambda: redis.xlen(stream) == 2)
        assert answered(stage) == []
        redis.xdel(stream, redis.xrange(stream)[0][0])

    await eventually(lambda: stage.states(second).keys() == {"done"})
    assert answered(stage) == second


async def test_a_replayed_event_and_one_of_its_key_before_it_do_not_wait_for_each_other(
    stage: Stage,
) -> None:
    """In one chat: its later events are handled, too."""

    def told(message_id: str, text: str) -> list[str]:
        envelope = edited(message_id, text)
        envelope["header"]["event_type"] = ORDERED
        envelope["event"]["message"]["chat_id"] = "oc_1"
        return stage.push(envelope)

    await stage.bridge_and_worker(handlers="orderly")
    died = told("om_1", "reject")
    await eventually(lambda: stage.states(died).keys() == {"dead"})
    head = told("om_0", "later 5")
    await eventually(lambda: stage.states(head).keys() == {"retry"})
    same, last = told("om_1", "hello"), told("om_9", "hello")
    with stage.redis() as redis:
        await eventually(lambda: redis.xlen(stage.keys.stream(ORDERED)) == 4)
    replayed = await flybridge(stage, "dlq", "replay", *died, handlers="orderly")
    assert replayed.code == 0, replayed.err

    await stage.settled([*head, *same, *last, *died])

    finished = [deed["event_id"] for deed in stage.deeds("finished", handler="tell")]
    assert finished == [*head, *same, *last]
    assert stage.states([*head, *same, *last, *died]).keys() == {"done"}
