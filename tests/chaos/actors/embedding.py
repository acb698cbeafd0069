"""A program of a user's with Flybridge in it: a worker alone, or a bridge and a worker."""

from __future__ import annotations

import asyncio
import importlib

from flybridge.bridge.builder import Builder
from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.process import gc_freeze
from flybridge.bridge.process.signals import stop_on_signals
from flybridge.bridge.telemetry import logs, tracing
from flybridge.handlers.loading.plugins import load
from flybridge.handlers.registry import registry
from flybridge.workers.inline import InlineWorker

HANDLERS = "playing"


def main(embedded: str) -> None:
    """Run until SIGTERM or SIGINT."""
    if embedded == "service":
        _serve()
        return
    settings = WorkerSettings.load()
    logs.configure(settings.log_level, settings.log_format, secrets=settings.secrets)
    load(settings.handlers)
    asyncio.run(_work(settings))


def _serve() -> None:
    playing = importlib.import_module(HANDLERS)
    builder = Builder().use_multi_handler().set_default_handler(playing.unknown)
    for handler in vars(playing).values():
        if registry.as_registered(handler):
            builder.add_handler(handler)
    builder.build().run()


async def _work(settings: WorkerSettings) -> None:
    traces = tracing.start(tracing.WORKER)
    worker = InlineWorker(settings, registry)
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    try:
        await worker.start()
        gc_freeze.settle()
        ended = asyncio.create_task(worker.wait())
        told = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        await worker.stop()
        await ended
    finally:
        traces.shutdown()
