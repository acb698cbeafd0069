"""Finds event types that two handlers share, for services that allow one handler per type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import combinations, product

from flybridge.handlers.types import ALIASES, STATUS_OF_ALIAS, canonical


def shared_types(written: Mapping[str, Iterable[str]]) -> list[str]:
    """A sentence for each pair of handlers that would run for the same event.

    Args:
        written: handler -> types and patterns as its author wrote them, aliases included.
    """
    return [
        f"{one} and {other} are both for {shared}; use_multi_handler() lets them share."
        for (one, some), (other, others) in combinations(written.items(), 2)
        if (shared := _shared(some, others))
    ]


def overlap(one: str, other: str) -> bool:
    """Whether both patterns cover a type in common; `*` stands for any characters."""

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
    """The narrower of two patterns that overlap, with the aliases written; empty if none do."""
    for one, other in product(some, others):
        if overlap(canonical(one), canonical(other)) and not _apart(one, other):
            aliases = [name for name in dict.fromkeys((one, other)) if name in ALIASES]
            return ", alias ".join([canonical(other if "*" in one else one), *aliases])
    return ""


def _apart(one: str, other: str) -> bool:
    """Whether they are aliases for different statuses of one type, so that no event fits both."""
    meant = {STATUS_OF_ALIAS.get(one), STATUS_OF_ALIAS.get(other)}
    return len(meant) == 2 and None not in meant
