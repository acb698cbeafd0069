"""Queues that several threads take from."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TypeVar

ItemT = TypeVar("ItemT")


def emptied(queue: deque[ItemT]) -> list[ItemT]:
    """Take out everything, whoever else takes something out meanwhile."""
    found: list[ItemT] = []
    with suppress(IndexError):
        while True:
            found.append(queue.popleft())
    return found
