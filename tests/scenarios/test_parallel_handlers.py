"""Several handlers of one event: all at once, or one after the other where that is asked for."""

from __future__ import annotations

import pytest

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Stage

TYPE = "im.chat.disbanded_v1"


@pytest.mark.parametrize(
    ("setting", "ended"),
    [
        ({}, ["dash", "dawdle"]),
        ({"parallel_handlers": "false"}, ["dawdle", "dash"]),
        ({"parallel_multi_handlers": "false"}, ["dawdle", "dash"]),
    ],
    ids=["by default", "in order", "in order, by the seed's name"],
)
async def test_workers_run_the_handlers_of_an_event_as_they_are_told(
    stage: Stage, setting: dict[str, str], ended: list[str]
) -> None:
    await stage.bridge_and_worker("--concurrency", "1", handlers="abreast", **setting)
    event_ids = stage.push(sample(TYPE))
    await stage.settled(event_ids)
    assert [deed["handler"] for deed in stage.deeds("finished")] == ended
    began = [deed["handler"] for deed in stage.deeds("started")]
    assert began == ["dawdle", "dash"], "in the order of their registration"
