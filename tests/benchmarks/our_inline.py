"""Flybridge's inline worker as a program of its own, until it is killed."""

from __future__ import annotations

import asyncio

from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.telemetry import logs
from flybridge.handlers.loading.plugins import load
from flybridge.handlers.registry import registry
from flybridge.workers.inline import InlineWorker


async def main() -> None:
    """Run the handlers that the environment names."""
    settings = WorkerSettings.load()
    logs.configure(settings.log_level, settings.log_format)
    load(settings.handlers)
    async with InlineWorker(settings, registry) as worker:
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
