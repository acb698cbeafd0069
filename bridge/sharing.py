"""Finds event types that two handlers share, where each type may have but one. Pure.

What a single pattern covers is in `handlers/types.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import combinations, product

from handlers.registration import Registration


def shared_types(registrations: Iterable[Registration]) -> list[str]:
    """A sentence for each two handlers that would run for the same event."""
    return [
        f"{one.name} and {other.name} are both for {shared}; use_multi_handler() lets them share."
        for one, other in combinations(registrations, 2)
        if (shared := _shared(one.patterns, other.patterns))
    ]


def overlap(one: str, other: str) -> bool:
    """Whether there is a type that both patterns cover; `*` stands for any characters."""

    @cache
    def meet(left: str, right: str) -> bool:
        if not left or not right:
            return not (left + right).strip("*")
        if left[0] == "*":
            return meet(left[1:], right) or meet(left, right[1:])
        if right[0] == "*":
            return meet(left, right[1:]) or meet(left[1:], right)
        return left[0] == right[0] and meet(left[1:], right[1:])

    return meet(one, other)


def _shared(some: Iterable[str], others: Iterable[str]) -> str:
    """What they share, by its narrower name; '' for nothing."""
    for one, other in product(some, others):
        if overlap(one, other):
            return other if "*" in one else one
    return ""
