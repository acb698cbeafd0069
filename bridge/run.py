"""Composition root of what `flybridge run`, `local` and `dev` start.

Only wiring and signals: what a bridge does is in `supervisor`, what settings mean in `settings`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, TypeVar

import structlog
from redis.asyncio import Redis
from starlette.applications import Starlette

from bridge import ops, telemetry
from bridge.connection import connect
from bridge.dev import dev
from bridge.durability import Durability, fit
from bridge.election import Timing
from bridge.endpoint import discover
from bridge.errors import OK, BridgeError
from bridge.heartbeat import Heartbeat
from bridge.lease import LeaseElector, new_identity
from bridge.local.feishu import LocalFeishu
from bridge.redis_client import address, async_client, check_server
from bridge.settings import BridgeSettings
from bridge.streams import Keys
from bridge.supervisor import Supervisor
from bridge.text_dialect import TextDialect
from bridge.web import serving

_T = TypeVar("_T")

log = structlog.get_logger("bridge.run")


class PortTaken(BridgeError):
    """The address to serve on is in use, or not ours."""


async def run_bridge(settings: BridgeSettings) -> int:
    """Run one bridge until SIGTERM or SIGINT; returns the exit code of a clean end.

    Raises:
        RedisUnreachable, RedisUnfit: at the start; later outages are waited out.
        FeishuRefused: wrong credentials or domain, as long as no discovery has ever succeeded.
    """
    async with AsyncExitStack() as stack:
        traces = telemetry.start(telemetry.BRIDGE)
        stack.callback(traces.shutdown)
        redis = async_client(settings.redis_url, app_id=settings.app_id)
        stack.push_async_callback(redis.aclose)
        await check_server(redis, settings.eviction)
        durability = await fit(Durability.parse(settings.durability), redis)
        supervisor = _supervisor(settings, redis, durability, traced=traces.enabled)
        if settings.ops_port:
            where = settings.ops_host, settings.ops_port
            app = _ops(settings, supervisor)
            port = await _listen(
                stack, serving(app, *where), *where, cure="set FLYBRIDGE_OPS_PORT to another port"
            )
            log.info("ops.started", host=settings.ops_host, port=port)
        stop_on_signals(supervisor.stop)
        log.info(
            "bridge.started",
            app_id=settings.app_id,
            redis=address(redis),
            durability=durability.profile,
        )
        await supervisor.run()
    return OK


async def run_local(host: str, port: int, say: Callable[[str], object]) -> None:
    """Serve a local Feishu until SIGTERM or SIGINT, and say how to reach it.

    Raises:
        PortTaken: somebody else listens there.
    """
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        local = LocalFeishu(host=host, port=port)
        feishu = await _listen(stack, local, host, port, cure="give another --port")
        say(_invitation(feishu))
        stop_on_signals(stop.set)
        await stop.wait()


async def run_dev(*, port: int, say: Callable[[str], object], **options: Any) -> None:
    """Run `bridge.dev` until SIGTERM or SIGINT.

    Raises:
        PortTaken: somebody else listens there; another `flybridge dev`, perhaps.
    """
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    try:
        await dev(port=port, stop=stop, say=say, **options)
    except OSError as error:
        raise PortTaken(
            f"Cannot listen on port {port} ({error.strerror}); give another --port."
        ) from error


def stop_on_signals(stop: Callable[[], object]) -> None:
    """Have SIGTERM and SIGINT call `stop`, until the running loop is closed.

    A second signal changes nothing: a terminal's ^C reaches the whole process group, and a parent
    passes it on once more; dying of that would leave the lease to run out.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stopping, number, stop)


def _stopping(received: signal.Signals, stop: Callable[[], object]) -> None:
    log.info("process.stopping", signal=received.name)
    stop()


def _supervisor(
    settings: BridgeSettings, redis: Redis, durability: Durability, *, traced: bool
) -> Supervisor:
    keys = Keys(settings.app_id)
    timing = Timing(settings.lease_duration, settings.renew_deadline, settings.retry_period)
    ask = partial(
        discover, settings.base_url, settings.app_id, settings.app_secret.get_secret_value()
    )
    elector = LeaseElector(redis, keys, new_identity(), timing)
    heartbeat = Heartbeat(longest=settings.ping_interval, silence=settings.pong_alarm)
    return Supervisor(
        redis, keys, elector, ask, partial(connect, text_dialect=_dialect(settings)),
        durability=durability, retention=settings.retention, heartbeat=heartbeat,
        memory_threshold=settings.memory_threshold, traced=traced,
    )  # fmt: skip


def _dialect(settings: BridgeSettings) -> TextDialect | None:
    if not settings.text_dialect:
        return None
    token = settings.text_token.get_secret_value()
    return TextDialect(token, settings.app_id, settings.text_event_url)


def _ops(settings: BridgeSettings, supervisor: Supervisor) -> Starlette:
    return ops.application(
        supervisor.status,
        lease_duration=settings.lease_duration,
        patience=supervisor.pace.patience,
    )


async def _listen(
    stack: AsyncExitStack,
    server: AbstractAsyncContextManager[_T],
    host: str,
    port: int,
    *,
    cure: str,
) -> _T:
    """Enter a server until the stack ends, with a sentence for an address it cannot have."""
    try:
        return await stack.enter_async_context(server)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PortTaken(f"Cannot listen on {host}:{port} ({reason}); {cure}.") from error


def _invitation(feishu: LocalFeishu) -> str:
    return f"""\
Local Feishu: {feishu.url}
App ID:       {feishu.app_id}
App Secret:   {feishu.app_secret}   (of an app that exists nowhere)

  FLYBRIDGE_DOMAIN={feishu.url} FLYBRIDGE_APP_ID={feishu.app_id} \\
  FLYBRIDGE_APP_SECRET={feishu.app_secret} flybridge run
  flybridge trigger im.message.receive_v1 --url {feishu.url}

Ready. ^C ends it."""
