"""Handlers, and a Celery task of the user's own beside them, as in any Celery program."""

from __future__ import annotations

import os

from celery import shared_task

from tests.scenarios.acting import act

__all__ = ["act", "add"]


@shared_task
def add(first: int, second: int) -> None:
    with open(os.environ["SUMS"], "a") as sums:
        sums.write(f"{first + second}\n")
