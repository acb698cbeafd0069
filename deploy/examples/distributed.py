"""Many instances, each event once: start this as often as you like. Seed: 分布式部署支持.

One instance leads and holds the connection, all share the events. There is nothing to lock: each
event is claimed under a lock, and marked when it is done. The mark is what counts. A lock ends
with the work, Feishu may push the event again hours later, and then the lock is free.
"""

import os
import uuid
from collections.abc import Callable

from redis import Redis

from flybridge.bridge.builder import Builder
from flybridge.handlers import Context, Event
from flybridge.workers.locks import EventLock, Keys

GROUP = "by-hand"


async def process_event(event: Event, context: Context) -> None:
    print(f"processing {event.id} in {os.getpid()}")


class DistributedEventProcessor:
    """The same by hand, for what does not come through Flybridge: a lock *and* a mark."""

    def __init__(self, redis: Redis, app_id: str) -> None:
        self.redis = redis
        self.keys = Keys(app_id)

    def process(self, event_id: str, work: Callable[[], None]) -> str:
        lock = EventLock(self.redis, self.keys, GROUP, event_id, uuid.uuid4().hex, event_lease=60)
        if not lock.acquire():
            return "another instance is at it"
        try:
            if self.redis.exists(f"done:{event_id}"):
                return "was done before"
            work()
            self.redis.set(f"done:{event_id}", 1, ex=86_400)  # longer than Feishu's last retry
            return "done"
        finally:
            lock.release()  # never raises, so that what came out of the work is what you see


if __name__ == "__main__":
    Builder().add_handler(process_event, "im.message.receive_v1").build().run()
