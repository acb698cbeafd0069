"""What every measure needs: a private Redis, processes that surely end, rates and tables.

It knows neither Flybridge's internals nor those of its peers.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
import redis

from flybridge.bridge.local.valkey import EmbeddedRedis
from flybridge.bridge.process.parent_death import die_with_parent

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUR_PYTHON = sys.executable
PEER_PYTHON = str(ROOT / ".venv-interop" / "bin" / "python")

STOP_TIMEOUT = 5.0
_QUIET = ("FLYBRIDGE_", "OTEL_", "CELERY_")
"""Variables of the caller that would change what is measured."""


@dataclass(frozen=True, slots=True)
class Options:
    """Of the command line."""

    quick: bool
    runs: int


@contextmanager
def private_redis() -> Iterator[tuple[EmbeddedRedis, redis.Redis]]:
    """A server as Flybridge wants it in production (append-only file, fsync every second)."""
    with EmbeddedRedis(append_only=True) as server, redis.Redis.from_url(server.url) as client:
        yield server, client


class Process:
    """`with Process(...) as process:` runs a command and ends all its processes with the block."""

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str] | None = None,
        *,
        piped: bool = False,
    ) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(_QUIET)}
        clean |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "PYTHONUNBUFFERED": "1"}
        self._arguments = list(arguments)
        self._environ = clean | dict(environ or {})
        self._piped = piped

    def __enter__(self) -> Self:
        # An own directory: no `.env` of the caller, no stray files.
        self._directory = tempfile.TemporaryDirectory(prefix="flybridge-bench-")
        self.log = Path(self._directory.name) / "log"
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                self._arguments,
                cwd=self._directory.name,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._piped else log,
                bufsize=0,
                stderr=log,
                start_new_session=True,
                preexec_fn=functools.partial(die_with_parent, parent=os.getpid()),
            )
        self._seen = psutil.Process(self._popen.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGTERM)
        try:
            self._popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._popen.wait()
            if self._popen.stdout:
                self._popen.stdout.close()
            self._directory.cleanup()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def line(self, timeout: float = 30.0) -> str:
        """The next line of the output; only with `piped`."""
        assert self._popen.stdout is not None
        readable, _, _ = select.select([self._popen.stdout], [], [], timeout)
        line = self._popen.stdout.readline().decode().strip() if readable else ""
        if not line:
            raise RuntimeError(f"{self._arguments} says nothing: {self.tail()}")
        return line

    def check(self) -> None:
        """Raise if it has ended by itself."""
        if self._popen.poll() is not None:
            raise RuntimeError(f"{self._arguments} ended: {self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def cpu(self) -> float:
        """CPU seconds of it and its living children."""
        family = [self._seen, *self._seen.children(recursive=True)]
        times = [each.cpu_times() for each in family if each.is_running()]
        return sum(each.user + each.system for each in times)

    def memory(self) -> int:
        """Resident bytes of the process itself."""
        return int(self._seen.memory_info().rss)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)


def rate(done: Callable[[], int], total: int, process: Process, *, timeout: float = 120.0) -> float:
    """Events per second between 15 % and 95 % of `total`."""
    start = reach(done, int(total * 0.15), process, timeout)
    end = reach(done, int(total * 0.95), process, timeout)
    if end[0] == start[0]:
        raise RuntimeError("too fast for this many events; raise the number")
    return (end[1] - start[1]) / (end[0] - start[0])


def reach(
    done: Callable[[], int],
    goal: int,
    process: Process,
    timeout: float = 120.0,
    every: float = 0.02,
) -> tuple[float, int]:
    """Wait until `goal` is done; the time at which it was seen, and what was done by then."""
    deadline = time.monotonic() + timeout
    while (count := done()) < goal:
        process.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"stuck at {count} of {goal}: {process.tail()}")
        time.sleep(every)
    return time.time(), count


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table.

    Attributes:
        name: what was measured.
        values: of each run.
        against: the peer's values; none for a peer's own line.
        required: the ratio or the value that must be reached.
        most: `required` is an upper bound of the value itself.
    """

    name: str
    values: Sequence[float]
    against: Sequence[float] = ()
    required: float | None = None
    most: bool = False

    def cells(self) -> tuple[str, str, str, str]:
        """Name, median with range, ratio, requirement."""
        median = statistics.median(self.values)
        spread = f" [{number(min(self.values))}-{number(max(self.values))}]"
        figure = number(median) + (spread if len(self.values) > 1 else "")
        ratio = median / statistics.median(self.against) if self.against else None
        judged = median if self.most or ratio is None else ratio
        return self.name, figure, f"{ratio:.2f} x" if ratio else "", self._verdict(judged)

    def _verdict(self, judged: float) -> str:
        if self.required is None:
            return ""
        met = judged <= self.required if self.most else judged >= self.required
        sign, unit = ("<=", "") if self.most else (">=", " x" if self.against else "")
        return f"{sign} {number(self.required)}{unit} {'met' if met else 'MISSED'}"


def number(value: float) -> str:
    """As many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(title: str, unit: str, lines: Sequence[Line]) -> None:
    """Print one measure; the ratio column is the value over the peer's."""
    load = os.getloadavg()[0]
    print(f"\n{title}   (load {load:.1f} on {os.cpu_count()} cores)")
    rows = [("", unit, "ratio", "must"), *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        name, *rest = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {name}  {'  '.join(rest)}".rstrip(), flush=True)
