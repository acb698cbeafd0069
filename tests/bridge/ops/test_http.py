"""Health and status over HTTP: the verdicts, and a server that starts and stops."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

import pytest

from flybridge.bridge.ops.http import application, unlive, unready
from flybridge.bridge.ops.status import Standing, State, Status
from flybridge.bridge.ops.web import serving
from flybridge.bridge.protocol.heartbeat import Heartbeat

STATUS = Status(
    identity="a", app_id="cli_test", pid=1, state=State.LEADING, at=1, started_at=1, since=1,
    term=7, leader="a", connected_for=3.0, pong_age=1.0, pong_seen=True, offline=0.0, trouble="",
    credentials=Standing.ACCEPTED, unreached=0.0, degraded=False,
    waiting=0, redis_age=1.0, renew_seconds=0.001, lease_failures=0, loop_lag=0.0,
    outcomes={"published": 3}, frames={"event": 3}, ack_bounds=[], ack_counts=[3], ack_seconds=0.1,
    leaderships=1, connects=1, full=False, memory_used=0, memory_limit=0, trimmed=0, lagging=0,
    durability="none", heartbeat=Heartbeat().statistics(0.0, 0),
)  # fmt: skip


def status(**changes: Any) -> Status:
    return replace(STATUS, **changes)


class TestReady:
    def ready(self, **changes: Any) -> bool:
        return not unready(status(**changes), lease_duration=15.0, patience=60.0)

    def test_a_leader_with_a_pong_is_ready(self) -> None:
        assert self.ready()

    def test_a_standby_is_ready(self) -> None:
        assert self.ready(state=State.STANDBY, pong_seen=False, connected_for=None)

    def test_a_leader_before_its_first_pong_is_not(self) -> None:
        assert not self.ready(pong_seen=False)

    def test_a_leader_that_reconnects_is_ready_as_long_as_patience_lasts(self) -> None:
        assert self.ready(connected_for=None, offline=59.0)
        assert not self.ready(connected_for=None, offline=61.0)

    def test_a_leader_that_feishu_refuses_is_not_and_says_why(self) -> None:
        refused = status(degraded=True, trouble="app disabled")
        assert unready(refused, 15.0, 60.0) == ["feishu: app disabled"]

    @pytest.mark.parametrize("age", [None, 16.0])
    def test_without_redis_nobody_is(self, age: float | None) -> None:
        assert not self.ready(redis_age=age)
        assert not self.ready(state=State.STANDBY, redis_age=age)

    @pytest.mark.parametrize("state", [State.DRAINING, State.STOPPED])
    def test_who_is_about_to_go_is_not(self, state: State) -> None:
        assert not self.ready(state=state)


class TestLive:
    def test_neither_redis_nor_feishu_matter(self) -> None:
        assert unlive(status(state=State.STANDBY, redis_age=9e9, degraded=True), 15.0) == []

    def test_who_still_leads_long_after_its_lease_is_to_be_restarted(self) -> None:
        assert unlive(status(redis_age=19.0), 15.0) == []
        assert len(unlive(status(redis_age=21.0), 15.0)) == 1


async def get(port: int, path: str) -> tuple[int, str]:
    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


class TestServer:
    @pytest.mark.parametrize(
        ("path", "state", "code"),
        [
            ("/livez", State.LEADING, 200),
            ("/readyz", State.LEADING, 200),
            ("/readyz", State.DRAINING, 503),
            ("/leaderz", State.LEADING, 200),
            ("/leaderz", State.STANDBY, 404),
            ("/nothing", State.LEADING, 404),
        ],
    )
    async def test_the_status_code_is_the_verdict(self, path: str, state: State, code: int) -> None:
        app = application(lambda: status(state=state), lease_duration=15.0, patience=60.0)
        async with serving(app, "127.0.0.1", 0) as port:
            assert (await get(port, path))[0] == code

    async def test_the_status_is_json(self) -> None:
        app = application(lambda: STATUS, lease_duration=15.0, patience=60.0)
        async with serving(app, "127.0.0.1", 0) as port:
            shown = json.loads((await get(port, "/status"))[1])
        assert (shown["state"], shown["term"]) == ("leading", 7)
        assert shown["outcomes"] == {"published": 3}

    async def test_the_metrics_are_of_the_moment_of_the_scrape(self) -> None:
        moments = iter([status(waiting=3), status(waiting=4)])
        app = application(lambda: next(moments), lease_duration=15.0, patience=60.0)
        async with serving(app, "127.0.0.1", 0) as port:
            for waiting in (3, 4):
                code, text = await get(port, "/metrics")
                assert code == 200
                assert f'feishu_bridge_waiting_entries{{app="cli_test"}} {waiting}.0\n' in text

    @pytest.mark.parametrize(
        ("accept", "format"),
        [
            ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        ],
    )
    async def test_metrics_come_in_the_format_that_is_asked_for(
        self, accept: str, format: str
    ) -> None:
        app = application(lambda: STATUS, lease_duration=15.0, patience=60.0)
        async with serving(app, "127.0.0.1", 0) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            asked = f"GET /metrics HTTP/1.0\r\nHost: a\r\nAccept: {accept}\r\n\r\n"
            writer.write(asked.encode())
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        assert f"\r\ncontent-type: {format}".encode() in answer

    async def test_an_address_in_use_is_an_error_and_not_the_end_of_the_process(self) -> None:
        app = application(lambda: STATUS, lease_duration=15.0, patience=60.0)
        async with serving(app, "127.0.0.1", 0) as port:
            with pytest.raises(OSError, match="in use"):
                await serving(app, "127.0.0.1", port).__aenter__()

    async def test_it_leaves_signals_alone_and_stops_soon_with_a_connection_open(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        app = application(lambda: STATUS, lease_duration=15.0, patience=60.0)
        async with serving(app, "127.0.0.1", 0) as port:
            await get(port, "/livez")
            assert signal.getsignal(signal.SIGTERM) is before
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            started = time.monotonic()
        assert time.monotonic() - started < 2.0
        writer.close()
        await writer.wait_closed()
