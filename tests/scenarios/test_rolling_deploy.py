"""Old and new workers side by side: a type that only the new ones handle loses no event."""

from __future__ import annotations

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

TYPE = "vc.meeting.meeting_started_v1"
"""`acting` has no handler for it."""

NEWER = f"""
from acting import act, note
from flybridge.handlers import handles

@handles("{TYPE}")
def newer(event, context):
    note("finished", "newer", event, context)
"""

OLDER = """
from acting import note
from flybridge.handlers.registry import registry

def rest(event, context):
    note("finished", "rest", event, context)

registry.set_default(rest)
"""


async def test_events_go_to_the_workers_that_have_a_handler_or_wait_as_dead_letters(
    stage: Stage,
) -> None:
    old = await stage.bridge_and_worker(unhandled_limit=3)
    (stage.directory / "newer.py").write_text(NEWER)

    # Nobody has a handler yet: nothing piles up, and the oldest of too many letters go.
    early = stage.push(*(sample(TYPE) for _ in range(5)))
    await stage.settled(early)
    assert stage.states(early) == {"dead": 5}
    assert [letter["reason"] for letter in stage.dead_letters()] == ["unhandled"] * 3
    assert len(old.lines("event.unhandled", event_type=TYPE)) == 1
    assert not old.lines("event.dead")

    # Some workers have one: all of the type's events are theirs.
    new = await stage.ready_worker("worker-2", "--pool", "threads", handlers="newer")
    operator = stage.start(
        "dlq", "dlq", "replay", "--all", "--reason", "unhandled", handlers="newer"
    )
    assert await operator.ended() == 0, operator.log.read_text()
    later = stage.push(*(sample(TYPE) for _ in range(20)), *(message() for _ in range(20)))
    await stage.settled(later)
    handled = {deed["event_id"] for deed in stage.deeds("finished", handler="newer")}
    await eventually(lambda: len(stage.deeds("finished", handler="newer")) == 3 + 20)
    assert handled <= {*early, *later[:20]}
    assert stage.states(later) == {"done": 40}
    assert stage.dead_letters() == []
    assert len(stage.deeds("finished", handler="act")) == 20
    assert not new.lines("event.unhandled")


async def test_a_default_handler_takes_nothing_once_a_worker_with_a_handler_has_started(
    stage: Stage,
) -> None:
    for name, text in {"older": OLDER, "newer": NEWER}.items():
        (stage.directory / f"{name}.py").write_text(text)
    await stage.bridge_and_worker("--pool", "threads", handlers="older")
    early = stage.push(*(sample(TYPE) for _ in range(5)))
    await stage.settled(early)
    await stage.ready_worker("worker-2", "--pool", "threads", handlers="newer")
    later = stage.push(*(sample(TYPE) for _ in range(50)))
    await stage.settled(later)
    assert {deed["event_id"] for deed in stage.deeds("finished", handler="rest")} == set(early)
    assert {deed["event_id"] for deed in stage.deeds("finished", handler="newer")} == set(later)
