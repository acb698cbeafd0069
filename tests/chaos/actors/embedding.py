"""A program of a user's with Flybridge in it: a worker alone, or a bridge and a worker."""

from __future__ import annotations

import asyncio
import importlib

from bridge import heap, logs, telemetry
from bridge.builder import Builder
from bridge.settings import WorkerSettings
from bridge.signals import stop_on_signals
from handlers.plugins import load
from handlers.registry import registry
from workers.inline import InlineWorker

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
    traces = telemetry.start(telemetry.WORKER)
    worker = InlineWorker(settings, registry)
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    try:
        await worker.start()
        heap.settle()
        ended = asyncio.create_task(worker.wait())
        told = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        await worker.stop()
        await ended
    finally:
        traces.shutdown()
