"""The three durations of the lease: how long it lasts, and how often it is renewed."""

from __future__ import annotations

import math
from dataclasses import dataclass

JITTER = 0.2
"""Retries are spread by this share to both sides, so that candidates do not march in step."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in seconds, named as in client-go's leaderelection, with its defaults."""

    lease_duration: float = 15.0
    """How long others wait after the last renewal before one of them takes over."""
    renew_deadline: float = 10.0
    """How long the leader goes on without a renewal before it steps down by its own clock."""
    retry_period: float = 2.0
    """Between two renewals. A standby asks twice as often: a released lease is found soon."""

    def __post_init__(self) -> None:
        problems = contradictions(self.lease_duration, self.renew_deadline, self.retry_period)
        if problems:
            raise ValueError(" ".join(problems))


def contradictions(lease_duration: float, renew_deadline: float, retry_period: float) -> list[str]:
    """What is wrong with the three durations, a sentence each; empty when they fit."""
    given = {
        "FLYBRIDGE_LEASE_DURATION": lease_duration,
        "FLYBRIDGE_RENEW_DEADLINE": renew_deadline,
        "FLYBRIDGE_RETRY_PERIOD": retry_period,
    }
    wrong = {name: value for name, value in given.items() if not 0 < value < math.inf}
    if wrong:
        return [f"{name} is {value:g}; give seconds above 0." for name, value in wrong.items()]
    problems = []
    if lease_duration <= renew_deadline:
        problems.append(
            f"FLYBRIDGE_LEASE_DURATION ({lease_duration:g} s) must be longer than "
            f"FLYBRIDGE_RENEW_DEADLINE ({renew_deadline:g} s), so that a leader steps down before "
            "another may take over; raise the first or lower the second."
        )
    if renew_deadline <= retry_period * (1 + JITTER):
        problems.append(
            f"FLYBRIDGE_RENEW_DEADLINE ({renew_deadline:g} s) must be longer than "
            f"{1 + JITTER:g} times FLYBRIDGE_RETRY_PERIOD ({retry_period:g} s), so that one lost "
            "renewal does not end leadership; raise the first or lower the second."
        )
    return problems
