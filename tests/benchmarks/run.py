"""`python tests/benchmarks/run.py [MEASURE ...] [--quick] [--runs N]` measures and prints.

Every figure stands beside that of a peer from the same run on the same machine. Not a test: a
missed figure is printed as such, and the exit code stays 0.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from harness import Options, private_redis

MEASURES = {
    "intake": "intake",
    "latency": "latency",
    "bridge": "push",
    "asyncio": "coroutines",
    "memory": "memory",
    "commands": "commands",
    "ordering": "ordering",
    "batches": "batches",
}
"""Measure -> module; modules named as the measures would hide the packages of that name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="fewer events, one run each")
    parser.add_argument("--runs", type=int, help="median of so many; 3, with --quick 1")
    given = parser.parse_args()
    wanted = list(MEASURES) if not given.measures or "all" in given.measures else given.measures
    if unknown := set(wanted) - set(MEASURES):
        parser.error(f"no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}, all")
    # Else the `with` blocks would not end, nor with them what they started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _headline()
    options = Options(given.quick, given.runs or (1 if given.quick else 3))
    for name in wanted:
        importlib.import_module(MEASURES[name]).measure(options)


def _headline() -> None:
    with private_redis() as (_, client):
        info = client.info("server")
    kind = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info["redis_version"])
    print(f"Python {platform.python_version()}, {kind} {version} with AOF everysec, "
          f"{os.cpu_count()} cores that all processes share; median [min-max]")  # fmt: skip


if __name__ == "__main__":
    main()
