"""The watchdog: what it takes for a stuck loop, and that it ends the process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from flybridge.bridge.errors import EXIT_LEASE
from flybridge.bridge.leadership.watchdog import Stall, Watchdog
from tests.waiting import eventually


class TestStall:
    def test_a_loop_that_ticks_is_never_stuck(self) -> None:
        stall = Stall(1.0)
        assert [stall.observe(tick, 1.0) for tick in range(5)] == [0.0] * 5

    def test_a_loop_that_does_not_is_stuck_since_its_last_tick(self) -> None:
        stall = Stall(1.0)
        stall.observe(1, 1.0)
        assert [stall.observe(1, 1.0) for _ in range(3)] == [1.0, 2.0, 3.0]
        assert stall.observe(2, 1.0) == 0.0

    def test_a_pause_of_the_whole_process_is_not_the_loops_fault(self) -> None:
        stall = Stall(1.0)
        stall.observe(1, 1.0)
        assert stall.observe(1, 3600.0) == 2.0


def stick(seconds: float) -> None:
    time.sleep(seconds)


async def test_only_a_leader_is_ended_and_only_when_the_loop_is_stuck() -> None:
    ended = threading.Event()
    codes: list[int] = []
    leads = False

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    dog = Watchdog(0.1, lambda: leads, end=end)
    dog.start()
    stick(0.4)
    assert not ended.is_set(), "a stuck standby does no harm"
    await eventually(lambda: dog.lag > 0)
    leads = True
    stick(0.4)
    assert ended.wait(3)
    assert codes == [EXIT_LEASE]
    dog.stop()


def test_the_process_ends_with_its_exit_code_and_the_stacks_on_stderr() -> None:
    program = (
        "import asyncio, time\n"
        "from flybridge.bridge.leadership.watchdog import Watchdog\n"
        "async def main():\n"
        "    Watchdog(0.2, lambda: True).start()\n"
        "    time.sleep(30)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=20)
    assert done.returncode == EXIT_LEASE
    assert b"loop.stuck" in done.stdout + done.stderr
    assert b"time.sleep" in done.stderr or b"in main" in done.stderr
