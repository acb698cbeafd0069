"""Frames per second that one bridge takes from the socket, publishes durably, and acknowledges."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import events
import redis
from harness import (
    HERE,
    OUR_PYTHON,
    PEER_PYTHON,
    Line,
    Options,
    Process,
    private_redis,
    table,
)

COUNT = 200_000
PEER_COUNT = 40_000
REQUIRED = 3.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run; CPU in microseconds a frame."""

    rate: float
    cpu: float
    redis_cpu: float
    sender_cpu: float


def measure(options: Options) -> None:
    """Print frames per second, and who spent the CPU."""
    share = 4 if options.quick else 1
    ours: list[Figures] = []
    peers: list[Figures] = []
    for _ in range(options.runs):
        ours.append(_ours(COUNT // share))
        peers.append(_peer(PEER_COUNT // share))
    rates = [each.rate for each in ours], [each.rate for each in peers]
    table("bridge, 1.2 KB events", "frames/s", [
        Line("flybridge over lark-oapi", *rates, REQUIRED),
        Line("lark-oapi, no-op handler, stores nothing", rates[1]),
    ])  # fmt: skip
    table("CPU per frame", "us", [
        Line("flybridge", [each.cpu for each in ours]),
        Line("  its Redis", [each.redis_cpu for each in ours]),
        Line("  the sender", [each.sender_cpu for each in ours]),
        Line("lark-oapi", [each.cpu for each in peers]),
        Line("  the sender", [each.sender_cpu for each in peers]),
    ])  # fmt: skip


def sender(count: int) -> Process:
    """Pushes `count` events to who connects; see `port` and `progress`."""
    return Process([OUR_PYTHON, str(HERE / "sender.py"), str(count)], piped=True)


def port(pushing: Process) -> int:
    """Where the sender serves discovery; its first line."""
    return int(json.loads(pushing.line())["port"])


def bridge(redis_url: str, sender_port: int) -> Process:
    """`flybridge run` against the sender."""
    environ = {
        "FLYBRIDGE_APP_ID": events.APP_ID,
        "FLYBRIDGE_APP_SECRET": "secret",
        "FLYBRIDGE_DOMAIN": f"http://127.0.0.1:{sender_port}",
        "FLYBRIDGE_REDIS_URL": redis_url,
        "FLYBRIDGE_LOG_LEVEL": "warning",
    }
    return Process(
        [OUR_PYTHON, "-c", "from flybridge.bridge.cli.main import main; main()", "run"], environ
    )


def progress(pushing: Process, count: int) -> Iterator[dict[str, float]]:
    """`acked`, `time` and `cpu` of the sender at each per cent."""
    acked = 0.0
    while acked < count:
        found = json.loads(pushing.line())
        acked = found["acked"]
        yield found


def _ours(count: int) -> Figures:
    with ExitStack() as stack:
        server, client = stack.enter_context(private_redis())
        pushing = stack.enter_context(sender(count))
        ours = stack.enter_context(bridge(server.url, port(pushing)))
        figures = _figures(pushing, ours, count, lambda: _cpu_of_redis(client))
        stored = client.xlen(events.KEYS.stream(events.NOOP))
        if stored != count:
            raise RuntimeError(f"{count} acknowledged, but {stored} stored")
        return figures


def _peer(count: int) -> Figures:
    with ExitStack() as stack:
        pushing = stack.enter_context(sender(count))
        url = f"http://127.0.0.1:{port(pushing)}"
        client = Process([PEER_PYTHON, str(HERE / "peer_lark.py"), url])
        return _figures(pushing, stack.enter_context(client), count, lambda: 0.0)


def _figures(
    pushing: Process, client: Process, count: int, redis_cpu: Callable[[], float]
) -> Figures:
    """Between 15 % and 95 % of the events."""
    marks = []
    for found in progress(pushing, count):
        if len(marks) < 2 and found["acked"] >= count * (0.15, 0.95)[len(marks)]:
            marks.append((found["acked"], found["time"], client.cpu(), redis_cpu(), found["cpu"]))
    (first, started, *before), (last, ended, *after) = marks
    frames = last - first
    spent = [(new - old) / frames * 1e6 for old, new in zip(before, after, strict=True)]
    return Figures(frames / (ended - started), *spent)


def _cpu_of_redis(client: redis.Redis) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_sys"] + info["used_cpu_user"])
