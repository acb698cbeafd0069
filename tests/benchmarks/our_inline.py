"""Flybridge's inline worker as a program of its own, until it is killed."""

from __future__ import annotations

import asyncio

from bridge import logs
from bridge.settings import WorkerSettings
from handlers.plugins import load
from handlers.registry import registry
from workers.inline import InlineWorker


async def main() -> None:
    """Run the handlers that the environment names."""
    settings = WorkerSettings.load()
    logs.configure(settings.log_level, settings.log_format)
    load(settings.handlers)
    async with InlineWorker(settings, registry) as worker:
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
