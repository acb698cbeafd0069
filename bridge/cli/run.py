"""Runs what `flybridge run`, `local`, `dev` and `demo` start."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.errors import OK
from flybridge.bridge.local.demo import demo
from flybridge.bridge.local.dev import dev
from flybridge.bridge.local.feishu.server import LocalFeishu
from flybridge.bridge.manager import ConnectionManager
from flybridge.bridge.ops.web import PortTaken, listen
from flybridge.bridge.process import gc_freeze
from flybridge.bridge.process.signals import EXIT_HURRIED, stop_on_signals
from flybridge.bridge.telemetry import tracing


async def run_bridge(settings: BridgeSettings) -> int:
    """Run one bridge until SIGTERM or SIGINT; returns the exit code of a clean end.

    Raises:
        RedisUnreachable, RedisUnfit: at the start; later outages are waited out.
        FeishuRefused: wrong credentials or domain, which Feishu has never accepted.
        ConnectionOver: the settings allow no further attempt to connect.
        PortTaken: the ops port is taken.
        TaskFailed: a mistake of ours.
    """
    traces = tracing.start(tracing.BRIDGE)
    try:
        manager = ConnectionManager(settings)
        stop_on_signals(manager.stop_soon)
        async with manager:
            gc_freeze.settle()
            await manager.wait()
    finally:
        traces.shutdown()
    return OK


async def run_local(
    host: str,
    port: int,
    say: Callable[[str], object],
    *,
    text_dialect: bool = False,
    text_token: str = "",
) -> None:
    """Serve a local Feishu until SIGTERM or SIGINT, and say how to reach it.

    Raises:
        PortTaken: the port is taken.
    """
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        local = LocalFeishu(host=host, port=port, text_dialect=text_dialect, text_token=text_token)
        feishu = await listen(stack, local, host, port, cure="give another --port or --host")
        say(_invitation(feishu, text_dialect=text_dialect, token=text_token))
        stop_on_signals(stop.set)
        await stop.wait()


async def run_dev(*, port: int, say: Callable[[str], object], **options: Any) -> None:
    """Run `flybridge dev` until SIGTERM or SIGINT.

    Raises:
        PortTaken: the port is taken, perhaps by another `flybridge dev`.
    """
    try:
        await dev(port=port, say=say, **options)
    except OSError as error:
        raise PortTaken(
            f"Cannot listen on port {port} ({error.strerror}); give another --port."
        ) from error


async def run_demo(say: Callable[[str], object]) -> int:
    """Run the demo to its end, or until SIGTERM or SIGINT; returns the exit code."""
    playing = asyncio.ensure_future(demo(say))
    stop_on_signals(playing.cancel)
    try:
        return await playing
    except asyncio.CancelledError:
        say("\n  Stopped before its end: nothing is shown by it.")
        return EXIT_HURRIED


def _invitation(feishu: LocalFeishu, *, text_dialect: bool, token: str) -> str:
    url = shlex.quote(feishu.url)
    name, needed = f"Local Feishu:  {feishu.url}", ""
    if text_dialect:
        name = f"Local gateway: {feishu.url}   (JSON text, no frames; what it has sent is acked)"
        needed = "\\\n  FLYBRIDGE_TEXT_DIALECT=true "
        needed += f"FLYBRIDGE_TEXT_TOKEN={shlex.quote(token)} " if token else ""
    return f"""\
{name}
App ID:        {feishu.app_id}
App Secret:    {feishu.app_secret}   (of an app that exists nowhere)

  FLYBRIDGE_DOMAIN={url} FLYBRIDGE_APP_ID={feishu.app_id} \\
  FLYBRIDGE_APP_SECRET={feishu.app_secret} {needed}flybridge run
  flybridge trigger im.message.receive_v1 --url {url}

Ready. ^C ends it."""
