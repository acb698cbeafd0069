"""Health, status and metrics over HTTP, read only.

* `/livez`: the event loop runs (it answers), and this is no leader whose lease has long run out.
  Redis and Feishu do not count: an outage there must not restart every bridge.
* `/readyz`: Redis answers the lease calls. A standby is ready when Feishu accepts its credentials
  and was reached within `patience`. A leader is ready from the first pong of its leadership on, and
  stays so through gaps shorter than `patience`, since every connection is closed now and then. It
  is not ready while Feishu refuses it or Redis refuses its events; a full Redis does not count,
  since that is back pressure and no fault of this bridge.
* `/leaderz`: 200 for the leader, 404 for the others.
* `/status`: the whole status as JSON; `/metrics`: the same for Prometheus.

Machines read the status code; the body says which check failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flybridge.bridge.ops.metrics import exposition
from flybridge.bridge.ops.status import Standing, State, Status

OVERDUE = 5.0
"""Seconds past the lease's end after which a process that still claims to lead is not live."""


SCRAPE_PAUSE = 0.05
"""Seconds between two answers of `/metrics`; one takes some 3 ms of the event loop."""


def unlive(status: Status, lease_duration: float) -> list[str]:
    """Why the process should be restarted; empty when it should not."""
    age = status.redis_age or 0.0
    if status.state is State.LEADING and age > lease_duration + OVERDUE:
        return [f"lease: not renewed for {age:.0f} s, and still leading"]
    return []


def unready(status: Status, lease_duration: float, patience: float) -> list[str]:
    """Why the bridge is not ready; empty when it is."""
    problems = []
    if status.redis_age is None or status.redis_age > lease_duration:
        problems.append("redis: no answer to the lease calls")
    if status.state in (State.DRAINING, State.STOPPED):
        problems.append(f"state: {status.state.value}")
    if status.state is State.LEADING:
        problems += _unconnected(status, patience)
        if status.publish_trouble:
            problems.append(f"redis: takes no events: {status.publish_trouble}")
    if status.state is State.STANDBY:
        problems += _unaccepted(status, patience)
    return problems


def _unaccepted(status: Status, patience: float) -> list[str]:
    if status.credentials is Standing.REFUSED:
        return [f"feishu: {status.trouble}"]
    if status.credentials is Standing.UNKNOWN:
        return [f"feishu: not known yet to accept this bridge; {status.trouble or 'asking'}"]
    if status.unreached > patience:
        return [f"feishu: not reached for {status.unreached:.0f} s; {status.trouble}"]
    return []


def _unconnected(status: Status, patience: float) -> list[str]:
    if status.degraded:
        return [f"feishu: {status.trouble}"]
    if not status.pong_seen:
        return [f"feishu: no pong yet; {status.trouble or 'connecting'}"]
    if status.offline > patience:
        return [f"feishu: not connected for {status.offline:.0f} s; {status.trouble}"]
    return []


def application(
    status: Callable[[], Status], *, lease_duration: float, patience: float
) -> Starlette:
    """The HTTP application. `status` is called for every request."""

    async def livez(request: Request) -> Response:
        return _verdict(unlive(status(), lease_duration))

    async def readyz(request: Request) -> Response:
        return _verdict(unready(status(), lease_duration, patience))

    async def leaderz(request: Request) -> Response:
        now = status()
        body = f"leader: {now.leader or 'none'}\n"
        return PlainTextResponse(body, 200 if now.state is State.LEADING else 404)

    async def show(request: Request) -> Response:
        return Response(status().to_json(), media_type="application/json")

    scrapes = _Turns()

    async def metrics(request: Request) -> Response:
        async with scrapes.turn():
            body, media_type = exposition(status(), accept=request.headers.get("accept", ""))
        return Response(body, media_type=media_type)

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/leaderz", leaderz),
            Route("/status", show),
            Route("/metrics", metrics),
        ]
    )


class _Turns:
    """Lets one request in at a time, `SCRAPE_PAUSE` seconds after the one before."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._lock:
            await asyncio.sleep(self._next - time.monotonic())
            try:
                yield
            finally:
                self._next = time.monotonic() + SCRAPE_PAUSE


def _verdict(problems: list[str]) -> Response:
    body = "".join(f"[-]{problem}\n" for problem in problems) or "ok\n"
    return PlainTextResponse(body, 503 if problems else 200)
