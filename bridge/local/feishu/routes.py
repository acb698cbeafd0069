"""The HTTP side of the local Feishu: discovery for clients, `/local/…` to steer it from outside.

Anyone who reaches the port may use the second part; that is why it binds to loopback by default.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from flybridge.bridge.local.feishu.faults import apply
from flybridge.bridge.local.feishu.pushes import Push

if TYPE_CHECKING:
    from flybridge.bridge.local.feishu.server import LocalFeishu

SHOWN = 100
"""Owed event ids in one status answer."""

_Endpoint = Callable[[Request], Awaitable[JSONResponse]]


def routes(feishu: LocalFeishu) -> Starlette:
    """The application of one local Feishu."""
    control = _Control(feishu)
    return Starlette(
        routes=[
            Route("/callback/ws/endpoint", control.discover, methods=["POST"]),
            Route("/local/push", _told(control.push), methods=["POST"]),
            Route("/local/fault", _told(control.fault), methods=["POST"]),
            Route("/local/wait", _told(control.wait), methods=["POST"]),
            Route("/local/status", control.status),
            Route("/local/events/{event_id:path}", control.event),
        ]
    )


class _Control:
    """One method a route; a wrong request raises ValueError with the sentence for the caller."""

    def __init__(self, feishu: LocalFeishu) -> None:
        self._feishu = feishu

    async def discover(self, request: Request) -> JSONResponse:
        host = request.url.hostname or "127.0.0.1"
        status, answer = self._feishu.discover(await request.body(), host)
        return JSONResponse(answer, status)

    async def push(self, request: Request) -> JSONResponse:
        asked = await _object(request)
        envelope, count = asked.get("envelope"), asked.get("count", 1)
        if not isinstance(envelope, dict) or not isinstance(count, int):
            raise ValueError('send {"envelope": {…}, "count": 1}')
        wanted = [envelope] if count == 1 else (_renamed(envelope) for _ in range(count))
        return JSONResponse({"event_ids": [self._feishu.push(each).event_id for each in wanted]})

    async def fault(self, request: Request) -> JSONResponse:
        options = await _object(request)
        apply(self._feishu.faults, str(options.pop("fault", "")), options)
        return JSONResponse({"armed": self._feishu.faults.armed()})

    async def wait(self, request: Request) -> JSONResponse:
        asked = await _object(request)
        events = self._feishu.ledger.events
        unknown = [each for each in asked.get("event_ids", ()) if each not in events]
        if unknown:
            raise ValueError(f"event {unknown[0]!r} was never pushed here")
        pushes = [events[each] for each in asked.get("event_ids", ())]
        await _settled(pushes, float(asked.get("timeout", 0.0)))
        return JSONResponse(_by_state(pushes))

    async def status(self, request: Request) -> JSONResponse:
        owed = [push.event_id for push in self._feishu.ledger.owed()]
        return JSONResponse(
            {
                "app_id": self._feishu.app_id,
                "url": self._feishu.url,
                "stats": self._feishu.stats,
                "connections": [each.summary() for each in self._feishu.connections.values()],
                "owed": len(owed),
                "owed_events": owed[:SHOWN],
                "faults": self._feishu.faults.armed(),
                "config": self._feishu.config,
            }
        )

    async def event(self, request: Request) -> JSONResponse:
        push = self._feishu.ledger.events.get(request.path_params["event_id"])
        if push is None:
            return JSONResponse({"error": "no such event was pushed here"}, 404)
        return JSONResponse(_event(push))


def _told(endpoint: _Endpoint) -> _Endpoint:
    async def answer(request: Request) -> JSONResponse:
        try:
            return await endpoint(request)
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 400)

    return answer


async def _object(request: Request) -> dict[str, Any]:
    asked = await request.json()
    if not isinstance(asked, dict):
        raise ValueError("send a JSON object")
    return asked


async def _settled(pushes: list[Push], timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            for push in pushes:
                await push.settled.wait()
    except TimeoutError:
        return


def _by_state(pushes: list[Push]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"acked": [], "owed": [], "given_up": []}
    for push in pushes:
        found[push.state].append(push.event_id)
    return found


def _event(push: Push) -> dict[str, Any]:
    attempts = [asdict(each) | {"ack": each.ack.decode(errors="replace")} for each in push.attempts]
    return {
        "event_id": push.event_id,
        "event_type": push.event_type,
        "state": push.state,
        "due": push.due,
        "attempts": attempts,
    }


def _renamed(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The same event under a fresh id."""
    event_id = uuid.uuid4().hex
    if "header" in envelope:
        return {**envelope, "header": {**envelope["header"], "event_id": event_id}}
    return {**envelope, "uuid": event_id}
