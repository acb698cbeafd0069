"""Starts and stops `flybridge run` and `worker` as child processes, for `dev` and `demo`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from flybridge.bridge.process.parent_death import die_with_parent

STOP_TIMEOUT = 10.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(slots=True)
class Actor:
    """One child process.

    Attributes:
        log: the file of its JSON lines; None when it writes to the terminal.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path | None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def logged(self, event: str) -> list[Mapping[str, Any]]:
        """The lines of its log with this event name, oldest first."""
        return [record for record in self._records() if record.get("event") == event]

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would."""
        self.process.kill()
        self.process.wait()

    def _records(self) -> Iterator[Mapping[str, Any]]:
        text = self.log.read_text(errors="replace") if self.log else ""
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def start(
    name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None
) -> Actor:
    """Start `flybridge <arguments>`; it dies with this process. Call it from the main thread.

    Args:
        environment: added to ours, without our own FLYBRIDGE_* and OTEL_* variables.
        log: a file for its output; None: the terminal.
    """
    output: TextIO | None = log.open("a") if log else None
    try:
        process = subprocess.Popen(  # noqa: S603  # our own command
            # -P: a folder `handlers` in the working directory must not come before ours.
            # No .env either: it is for a real app, not for this one.
            [sys.executable, "-P", "-m", "flybridge", "--env-file", os.devnull, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env={**_inherited(), **environment},
            preexec_fn=die_with_parent,
            # Not the terminal's process group: a ^C is for the parent, which ends them in order.
            process_group=0,
        )
    finally:
        if output:
            output.close()
    return Actor(name, process, log)


def stop(actors: Sequence[Actor]) -> None:
    """End them all by SIGTERM, and by SIGKILL those that take too long."""
    for actor in actors:
        if actor.alive:
            actor.process.send_signal(signal.SIGTERM)
    for actor in actors:
        try:
            actor.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            actor.kill()


def hurry(actors: Sequence[Actor]) -> None:
    """Let them end within 2 s, by another SIGTERM."""
    for actor in actors:
        if actor.alive:
            actor.process.send_signal(signal.SIGTERM)


def _inherited() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLYBRIDGE_", "OTEL_", "CELERY_"))
    }
