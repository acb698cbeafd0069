"""Promise 4: every event ends visibly, done or as a dead letter, after as many tries as it may."""

from __future__ import annotations

import json

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

LATE = 1.0
"""Seconds that a retry may come after it is due."""


def attempts(stage: Stage, event_id: str) -> list[int]:
    return [deed["attempt"] for deed in stage.deeds("started", event_id=event_id)]


async def test_a_handler_that_fails_is_tried_again_until_it_succeeds(stage: Stage) -> None:
    await stage.bridge_and_worker()

    failing, later = stage.push(message("fail 2"), message("later 1.5"))

    await stage.settled([failing, later])
    assert attempts(stage, failing) == [1, 2, 3]
    assert stage.counted() == {failing: 1, later: 1}
    assert attempts(stage, later) == [1, 2]
    asked, came = (deed["time"] for deed in stage.deeds("started", event_id=later))
    assert 1.5 <= came - asked <= 1.5 + LATE


async def test_what_is_given_up_becomes_a_dead_letter_with_the_entry_untouched(
    stage: Stage,
) -> None:
    await stage.bridge_and_worker()

    rejected, hopeless = stage.push(message("reject"), message("fail 99"))

    await stage.settled([rejected, hopeless])
    assert attempts(stage, rejected) == [1]
    assert attempts(stage, hopeless) == [1, 2, 3, 4, 5]
    letters = {letter["event_id"]: letter for letter in stage.dead_letters()}
    assert {event_id: letter["reason"] for event_id, letter in letters.items()} == {
        rejected: "rejected",
        hopeless: "attempts",
    }
    assert letters[hopeless]["attempts"] == "5"
    assert letters[hopeless]["handler"] == "acting:act"
    for entry in stage.entries():
        assert entry.items() <= letters[entry["event_id"]].items()
        assert json.loads(entry["envelope"])["header"]["event_id"] == entry["event_id"]


async def test_of_two_handlers_only_the_one_that_failed_runs_again(stage: Stage) -> None:
    await stage.bridge_and_worker()

    (event_id,) = stage.push(sample("im.chat.updated_v1"))

    await stage.settled([event_id])
    assert [deed["attempt"] for deed in stage.deeds(handler="first")] == [1]
    assert [(deed["deed"], deed["attempt"]) for deed in stage.deeds(handler="second")] == [
        ("started", 1),
        ("started", 2),
        ("finished", 2),
    ]


async def test_an_event_without_a_handler_is_done_where_the_operator_says_so(stage: Stage) -> None:
    worker = await stage.bridge_and_worker(unhandled="done")
    made_up = sample("im.message.receive_v1")
    made_up["header"]["event_type"] = "weather.storm.sighted_v1"

    (event_id,) = stage.push(made_up)

    await stage.settled([event_id])
    assert stage.state(event_id) == "done"
    line = await worker.logged("event.unhandled", event_type="weather.storm.sighted_v1")
    assert '@handles("weather.storm.sighted_v1")' in line["suggestion"]
    await eventually(lambda: stage.dead_letters() == [])
