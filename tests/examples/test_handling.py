"""The examples of handlers: what they take, in which order, how often, and how to test them."""

from __future__ import annotations

import subprocess
import sys

from flybridge.handlers.samples import sample
from tests.examples.conftest import EXAMPLES, Player, done
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually


async def test_a_handler_of_ones_own_handles_a_type_of_ones_own(play: Player, stage: Stage) -> None:
    example = await play.connected("custom_handler")
    fitting, unfit = message(), message()
    for envelope, number in ((fitting, 7), (unfit, "private")):
        envelope["header"]["event_type"] = "custom.event.example_v1"
        envelope["event"] = {"number": number}
    await done(stage, fitting)
    await example.said('"custom_event.handled"', '"number": 7')

    ids = stage.push(unfit)
    await eventually(lambda: stage.states(ids) == {"dead": 1})
    (letter,) = stage.dead_letters("workers")
    assert (letter["reason"], letter["event_id"]) == ("rejected", ids[0])
    assert "does not fit CustomEvent: number: Input should be a valid integer" in letter["error"]
    assert not example.says("private")
    assert await example.ended() == 0


async def test_similar_events_are_saved_together(play: Player, stage: Stage) -> None:
    example = play.start("batches")
    stage.push(*(message() for _ in range(50)))
    await eventually(lambda: stage.states([*stage.feishu.ledger.events]) == {"done": 50})
    sizes = [
        int(line.split()[1])
        for line in example.actor.log.read_text().splitlines()
        if line.startswith("saving")
    ]
    assert sum(sizes) == 50
    assert max(sizes) > 1
    assert await example.ended() == 0


async def test_messages_of_a_chat_come_in_order(play: Player, stage: Stage) -> None:
    example = await play.connected("in_order")
    chats = ("oc_a", "oc_b", "oc_c")
    await done(
        stage,
        *(message(str(n), **{"message.chat_id": chat}) for n in range(10) for chat in chats),
    )
    lines = [line.split() for line in example.actor.log.read_text().splitlines()]
    for chat in chats:
        assert [words[1] for words in lines if words[0] == chat] == [str(n) for n in range(10)]
    assert await example.ended() == 0


async def test_a_message_is_charged_once_under_two_event_ids(play: Player, stage: Stage) -> None:
    example = await play.connected("business_key")
    await done(stage, *(message(**{"message.message_id": "om_1"}) for _ in range(2)))
    assert example.actor.log.read_text().count("charged for om_1") == 1
    assert await example.ended() == 0


async def test_middleware_takes_the_time_of_every_handler(play: Player, stage: Stage) -> None:
    example = await play.connected("timing")
    await done(stage, message(), sample("im.message.message_read_v1"))
    await example.said("ReceiveMessage succeeded in", "MessageRead succeeded in")
    assert await example.ended() == 0


def test_the_tests_of_a_handler_pass() -> None:
    options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(EXAMPLES)]
    script = str((EXAMPLES / "test_greet").with_suffix(".py"))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
