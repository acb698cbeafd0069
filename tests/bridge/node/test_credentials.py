"""Whether Feishu accepts a bridge: what each answer means, and when it is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from flybridge.bridge.errors import (
    ConnectionOver,
    FeishuBusy,
    FeishuCrowded,
    FeishuError,
    FeishuRefused,
    FeishuUnavailable,
)
from flybridge.bridge.feishu.backoff import Attempts, Pace
from flybridge.bridge.node.credentials import Credentials
from flybridge.bridge.node.subscribers import Subscribers
from flybridge.bridge.ops.status import Standing
from tests.bridge.stand_ins import Board
from tests.waiting import eventually

NEVER = 1_000.0


class Feishu:
    """Raises what it is given, one a time, and at last accepts."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.has_changed = False

    async def discover(self, **known: Any) -> Any:
        self.asked.append(known)
        if self.answers:
            raise self.answers.pop(0)
        return SimpleNamespace()

    def has_another_secret(self) -> bool:
        changed, self.has_changed = self.has_changed, False
        return changed


PACE = Pace(busy_retry=NEVER, refused_retry=NEVER, check=NEVER, look=0.005)


def credentials(feishu: Feishu, pace: Pace = PACE, attempts: Attempts | None = None) -> Credentials:
    around: Any = (attempts or Attempts(), Board(), Subscribers())
    return Credentials(feishu, pace, *around)


@asynccontextmanager
async def watched(asking: Credentials) -> AsyncIterator[None]:
    task = asyncio.create_task(asking.watch(lambda: False))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize(
    ("answer", "standing", "refused"),
    [
        (FeishuUnavailable("no network"), Standing.UNKNOWN, False),
        (FeishuUnavailable("HTTP 400 instead of an endpoint", 400), Standing.REFUSED, True),
        (FeishuCrowded("too many connections"), Standing.ACCEPTED, False),
        (FeishuBusy("an unknown refusal"), Standing.REFUSED, True),
    ],
)
async def test_what_an_answer_means_before_feishu_has_ever_accepted(
    answer: FeishuError, standing: Standing, *, refused: bool
) -> None:
    asking = credentials(Feishu(answer))
    await asking.check()
    assert (asking.standing, asking.are_refused) == (standing, refused)


async def test_a_refusal_at_the_start_comes_out_later_ones_stay_inside() -> None:
    with pytest.raises(FeishuRefused, match="no such app"):
        await credentials(Feishu(FeishuRefused("no such app"))).check()
    feishu = Feishu()
    asking = credentials(feishu)
    await asking.check()
    feishu.answers = [FeishuRefused("no such app")]
    await asking.check()
    assert asking.are_refused


async def test_a_network_that_fails_changes_nothing_of_what_was_known() -> None:
    feishu = Feishu()
    asking = credentials(feishu)
    await asking.check()
    feishu.answers = [FeishuUnavailable("no network")]
    await asking.check()
    assert (asking.standing, asking.trouble) == (Standing.ACCEPTED, "no network")
    asking.refuse(FeishuRefused("the app was disabled"))
    feishu.answers = [FeishuUnavailable("no network")]
    await asking.check()
    assert (asking.standing, asking.trouble) == (Standing.REFUSED, "the app was disabled")
    await asking.check()
    assert (asking.standing, asking.trouble, asking.unreached) == (Standing.ACCEPTED, "", 0.0)


async def test_a_reason_is_logged_once_and_so_is_its_end() -> None:
    feishu = Feishu()
    asking = credentials(feishu)
    await asking.check()
    feishu.answers = [FeishuRefused("the app was disabled")] * 3 + [FeishuBusy("unknown")]
    with capture_logs() as logs:
        for _ in range(6):
            await asking.check()
    said = [(line["event"], line.get("reason")) for line in logs]
    assert said == [
        ("feishu.refused", "the app was disabled"),
        ("feishu.refused", "unknown"),
        ("feishu.accepted", None),
    ]


async def test_a_mistake_of_ours_ends_nothing() -> None:
    feishu = Feishu(ZeroDivisionError())
    asking = credentials(feishu)
    with capture_logs() as logs:
        await asking.check()
        await asking.check()
    assert [line["event"] for line in logs] == ["credentials.unchecked"]
    assert asking.standing is Standing.ACCEPTED


async def test_statuses_that_refuse_are_counted_over_whoever_asks() -> None:
    feishu = Feishu(*[FeishuUnavailable("HTTP 400", 400)] * 2)
    asking = credentials(feishu)
    await asking.check()
    with pytest.raises(FeishuUnavailable):
        await asking.discover()
    await asking.check()
    await asking.check()
    assert [known["refusals"] for known in feishu.asked] == [0, 1, 2, 0]


async def test_another_secret_is_tried_at_once_by_a_bridge_that_is_refused() -> None:
    feishu = Feishu()
    asking = credentials(feishu)
    async with watched(asking):
        await eventually(lambda: asking.standing is Standing.ACCEPTED)
        feishu.has_changed = True
        asking.refuse(FeishuRefused("the secret was changed"))
        await eventually(lambda: asking.standing is Standing.ACCEPTED)
    assert len(feishu.asked) == 2


async def test_a_leader_is_not_asked_for_its_connection_tells() -> None:
    feishu = Feishu()
    asking = credentials(feishu, Pace(check=0.001, look=0.001))
    looks: list[None] = []
    task = asyncio.create_task(asking.watch(lambda: not looks.append(None)))
    await eventually(lambda: len(looks) > 5)
    task.cancel()
    assert feishu.asked == []
    async with watched(asking):
        await eventually(lambda: len(feishu.asked) > 3)


async def test_refusals_count_as_attempts_where_those_are_bounded() -> None:
    feishu = Feishu()
    asking = credentials(feishu, attempts=Attempts(most=2))
    await asking.check()
    feishu.answers = [FeishuUnavailable("no network"), *[FeishuRefused("disabled")] * 2]
    await asking.check()
    await asking.check()
    with pytest.raises(ConnectionOver, match="disabled"):
        await asking.check()
