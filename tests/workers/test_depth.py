"""How many requests a pool is given: two a slot, but what the asyncio pool gets it runs at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flybridge.workers.celery_integration.pool import CeleryPool


def depth(**pool: Any) -> int:
    return CeleryPool(SimpleNamespace(pool=SimpleNamespace(**pool))).depth


def test_processes_and_threads_find_their_next_request_waiting():
    assert depth(num_processes=8) == 16


def test_the_asyncio_pool_runs_no_more_coroutines_than_it_was_told():
    assert depth(num_processes=1000, runs_coroutines=True) == 1000
