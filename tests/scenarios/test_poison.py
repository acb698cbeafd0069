"""Poison: the event that kills its process is given up, and those beside it are not."""

from __future__ import annotations

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

ATTEMPTS = 3
"""Of `perils.endanger`."""

NEIGHBOURS = 20

HANGS = "TimeLimitExceeded: no outcome within"


def attempts(stage: Stage, event_id: str) -> list[int]:
    return [deed["attempt"] for deed in stage.deeds("started", event_id=event_id)]


async def test_what_kills_a_child_is_given_up_in_prefork_and_nobody_else(stage: Stage) -> None:
    worker = await stage.bridge_and_worker("--concurrency", "2", handlers="hasty")

    directions = {
        "exit": "exitcode 1",
        "segfault": "SIGSEGV",
        "hog": "SIGKILL",
        "hang 60": HANGS,
    }
    poisons = stage.push(*map(message, directions))
    others = stage.push(
        *(message() for _ in range(NEIGHBOURS)),
        *(sample("im.message.recalled_v1") for _ in range(NEIGHBOURS)),
    )

    await stage.settled([*poisons, *others])
    letters = {letter["event_id"]: letter for letter in stage.dead_letters()}
    assert letters.keys() == set(poisons)
    assert {letter["reason"] for letter in letters.values()} == {"crash_loop"}
    for poison, error in zip(poisons, directions.values(), strict=True):
        # On a busy machine the time limit passes before a death is seen.
        assert error in letters[poison]["error"] or HANGS in letters[poison]["error"]
        # Twice at times: billiard hands a request on whose child died before it was seen to begin.
        assert sorted(set(attempts(stage, poison))) == [1, 2, 3]
    assert stage.counted() == dict.fromkeys(others, 1)
    assert worker.process.poll() is None


async def test_what_kills_a_whole_worker_is_given_up_and_its_neighbours_are_done(
    stage: Stage,
) -> None:
    await stage.leader(handlers="perils")
    poison, *others = stage.push(
        message("exit"),
        *(message("slow 0.05") for _ in range(NEIGHBOURS)),
        sample("im.message.recalled_v1"),
    )
    flags = ("--pool", "threads", "--concurrency", "8")
    workers = 0
    await eventually(lambda: len(stage.entries()) == NEIGHBOURS + 1)

    while stage.states([poison, *others]).keys() - {"done", "dead"}:
        workers += 1
        assert workers < 8, "the poison kills on"
        worker = stage.worker(f"worker-{workers}", *flags, handlers="perils", event_lease=1)
        await eventually(
            lambda worker=worker: (
                worker.process.poll() is not None
                or stage.states([poison, *others]).keys() <= {"done", "dead"}
            )
        )

    assert stage.states(others).keys() == {"done"}
    (letter,) = stage.dead_letters()
    assert (letter["event_id"], letter["reason"]) == (poison, "crash_loop")
    assert letter["error"] == "its process died in 3 of 3 attempts, in the last one alone"
    assert attempts(stage, poison) == [1, 2, 3]
    # Who had finished in the moment of a crash has run again, which no record can prevent.
    assert stage.counted().keys() == set(others)
    assert workers == ATTEMPTS + 1
