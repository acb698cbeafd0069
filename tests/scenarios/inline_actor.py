"""A program that runs `acting`'s handlers on its own event loop, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal

from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.telemetry import logs
from flybridge.handlers.loading.plugins import load
from flybridge.handlers.registry import registry
from flybridge.workers.inline import InlineWorker


async def main() -> None:
    settings = WorkerSettings.load()
    logs.configure(settings.log_level, settings.log_format)
    load(settings.handlers)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with InlineWorker(settings, registry):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
