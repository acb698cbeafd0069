"""Heartbeats: heard, counted, judged. Seed: 心跳处理功能, 心跳数据模型, 心跳统计, 心跳监控服务.

The bridge itself warns of intervals that vary by more than 5 s, and of two minutes of silence;
this shows how to do more.
"""

import asyncio
import signal

from flybridge.bridge.builder import Builder
from flybridge.bridge.lifecycle import HeartbeatReceived
from flybridge.bridge.manager import ConnectionManager
from flybridge.handlers.builtin import ReceiveMessage

CHECK_EVERY = 30.0  # seconds


class HeartbeatMonitor:
    def __init__(self, manager: ConnectionManager) -> None:
        self.manager = manager
        manager.subscribe(HeartbeatReceived, self.on_heartbeat)

    def on_heartbeat(self, heartbeat: HeartbeatReceived) -> None:
        print(f"💗 at {heartbeat.at}, every {heartbeat.interval} s, {heartbeat.status}")
        statistics = self.manager.heartbeat  # total, missed, recent, round trips: bounded memory
        if statistics.unstable:
            print(f"⚠️ intervals vary by {statistics.deviation:.1f} s: is the network well?")

    def report(self) -> None:
        statistics = self.manager.heartbeat
        print(f"heartbeats: {statistics.total}, mean interval: {statistics.mean_interval} s")
        for beat in statistics.recent[-3:]:  # of the last 20
            print(f"  at {beat.at}, answered after {beat.round_trip} s")
        if statistics.silent:
            print(f"⚠️ no heartbeat for two minutes, the last at {statistics.last}")

    async def check(self) -> None:
        while True:
            self.report()
            await asyncio.sleep(CHECK_EVERY)


async def main() -> None:
    service = Builder().add_handler(ReceiveMessage).build()
    monitor = HeartbeatMonitor(service.manager)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with service:
        checking = asyncio.create_task(monitor.check())
        await ended.wait()
        checking.cancel()


if __name__ == "__main__":
    asyncio.run(main())
