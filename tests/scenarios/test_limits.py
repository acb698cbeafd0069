"""Limits per handler: a limited type keeps its limit, and holds up no other."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

from flybridge.handlers.samples import sample
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

CELERY = str(Path(sys.executable).with_name("celery"))

RATED, NARROW, TIMELY = (
    "contact.user.created_v3",
    "contact.user.updated_v3",
    "contact.user.deleted_v3",
)
"""10 a second; two at once; two seconds old at most. See `perils`."""


def times(stage: Stage, event_ids: list[str], deed: str = "started") -> list[float]:
    wanted = set(event_ids)
    return sorted(each["time"] for each in stage.deeds(deed) if each["event_id"] in wanted)


def at_once(deeds: list[dict[str, Any]]) -> int:
    """The most that ran at the same time."""
    running = most = 0
    for deed in sorted(deeds, key=lambda each: each["time"]):
        running += 1 if deed["deed"] == "started" else -1
        most = max(most, running)
    return most


async def test_a_rate_is_kept_while_other_types_flow_past_until_an_operator_changes_it(
    stage: Stage,
) -> None:
    await stage.leader(handlers="perils")
    limited = stage.push(*(sample(RATED) for _ in range(150)))
    await stage.ready_worker(handlers="perils")
    await eventually(lambda: times(stage, limited))
    others = stage.push(*(message() for _ in range(200)))

    await eventually(lambda: stage.states(others).keys() == {"done"})
    await eventually(lambda: len(times(stage, limited)) >= 20)
    started = times(stage, limited)[:20]
    # At most the one token that a bucket holds comes on top of the rate.
    assert 1.8 <= started[-1] - started[0] <= 3.5

    control = ("control", "rate_limit", f"feishu.{RATED}", "1000/s")
    assert await stage.run("control", CELERY, "-A", "flybridge.workers.app", *control).ended() == 0

    await stage.settled([*limited, *others])
    started = times(stage, limited)
    assert started[-1] - started[0] < 150 / 10 * 0.8
    assert stage.counted() == dict.fromkeys([*limited, *others], 1)
    assert {deed["attempt"] for deed in stage.deeds()} == {1}


async def test_no_more_run_at_once_than_allowed_and_other_types_flow_past(stage: Stage) -> None:
    await stage.leader(handlers="perils")
    limited = stage.push(*(sample(NARROW) for _ in range(40)))
    await stage.ready_worker(
        "worker-1", "--pool", "threads", "--concurrency", "4", handlers="perils"
    )
    await eventually(lambda: times(stage, limited))
    others = stage.push(*(message() for _ in range(200)))

    await eventually(lambda: stage.states(others).keys() == {"done"})
    assert len(times(stage, limited, "finished")) < 30
    await stage.settled([*limited, *others])
    assert at_once([each for each in stage.deeds() if each["event_id"] in set(limited)]) == 2
    started = times(stage, limited)
    assert started[-1] - started[0] < 40 * 0.1 / 2 * 1.6
    assert stage.counted() == dict.fromkeys([*limited, *others], 1)


async def test_who_waits_for_a_limit_goes_to_another_worker_when_his_stops(stage: Stage) -> None:
    await stage.leader(handlers="perils")
    worker = await stage.ready_worker("worker-1", "--concurrency", "4", handlers="perils")
    limited = stage.push(*(sample(NARROW) for _ in range(60)))
    await eventually(lambda: times(stage, limited))
    await eventually(lambda: stage.pending(NARROW) >= 4)

    worker.send(signal.SIGTERM)
    await stage.ready_worker("worker-2", handlers="perils")

    assert await worker.ended(within=5.0) == 0
    await stage.settled(limited)
    assert stage.counted("started") == dict.fromkeys(limited, 1)
    assert {deed["attempt"] for deed in stage.deeds()} == {1}


async def test_an_event_past_its_age_is_begun_no_more(stage: Stage) -> None:
    await stage.bridge_and_worker(handlers="perils")
    late = sample(TIMELY)
    late["header"]["create_time"] = str(int((time.time() - 60) * 1000))
    fresh = sample(TIMELY)
    fresh["header"]["create_time"] = str(int(time.time() * 1000))

    event_ids = stage.push(late, fresh)

    await stage.settled(event_ids)
    attempts = [(each["event_id"], each["attempt"]) for each in stage.deeds("started")]
    assert attempts == [(event_ids[1], 1), (event_ids[1], 2)]
    errors = {letter["event_id"]: letter["error"] for letter in stage.dead_letters()}
    assert {letter["reason"] for letter in stage.dead_letters()} == {"age"}
    assert errors[event_ids[0]].endswith("s old; max_age is 30 s")
    assert errors[event_ids[1]] == "Retry: not yet"
