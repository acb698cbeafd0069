"""`EventLock`: python-redis-lock's lock, renewed by a thread and safe against lost replies.

It keeps others out while the work runs. It ends with the work, so it does not tell whether the work
was done before: keep a mark for that, as the guard does.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from typing import Self

import redis_lock
from redis import Redis
from redis.exceptions import RedisError

from flybridge.bridge.store.streams import Keys
from flybridge.handlers.loggers import get_logger

__all__ = [
    "EventLock",
    "Keys",
    "LockLost",
    "LockTaken",
]

BLPOP_TIMEOUT = 1.0
"""Seconds that one call waits for another to release, less than a client waits for a reply."""

RETRY_AFTER = 0.5
"""Seconds after which a renewal is tried again that failed."""

log = get_logger(__name__)


class LockTaken(redis_lock.NotAcquired):
    """Another holds the lock."""


class LockLost(redis_lock.NotAcquired):
    """The lock is no longer ours for sure, and another may work beside us."""


class EventLock(redis_lock.Lock):
    """The lock of one event, renewed by a thread of its own from `acquire` to `release`.

    Use it by `with` or `async with`, which raise `LockTaken` when another holds it and is not done
    in an event lease. What the body returns or raises comes out as it is, whatever became of the
    lock: ask `lost`, or call `check` before a step that must not be done twice. An object may be
    used again after its release, by one user at a time.

    Args:
        redis: a client; its socket timeout, if any, above a second.
        keys: of the app.
        group: consumer group.
        event_id: of the event.
        token: owner id; with the token of a claim it may extend that claim's lock. It must not
            acquire it: the claim may be another's by then.
        event_lease: seconds without renewal before another may have it; rounded up, for the
            library counts whole seconds.
    """

    def __init__(
        self, redis: Redis, keys: Keys, group: str, event_id: str, token: str, event_lease: float
    ) -> None:
        super().__init__(
            redis,
            keys.lock_name(group, event_id),
            expire=max(1, -int(-event_lease // 1)),
            id=token,
            strict=False,
        )
        self._sure_until = 0.0
        self._lost = False
        self._end: threading.Event | None = None
        self._unwanted = threading.Event()

    @classmethod
    def register_scripts(cls, redis_client: Redis) -> None:
        """For the library's own class: it does so once a process, for whichever comes first."""
        redis_lock.Lock.register_scripts(redis_client)

    @property
    def lost(self) -> bool:
        """Whether it was acquired and is no longer ours for sure; after the release: was not."""
        return self._lost or (self._end is not None and time.monotonic() >= self._sure_until)

    def check(self) -> None:
        """Make sure that it is still ours.

        Raises:
            LockLost: it may be another's.
        """
        if self.lost or self._end is None:
            raise LockLost(
                f"{self._name} is not held any more: Redis could not be asked in time, or somebody "
                "deleted it; let the other one do the work"
            )

    def acquire(self, blocking: bool = False, timeout: float | None = None) -> bool:
        """Take it if nobody has it; False if another has.

        Args:
            blocking: wait for the other's release.
            timeout: seconds to wait at most; None: an event lease.

        Raises:
            redis_lock.AlreadyAcquired: somebody with this token has it.
            redis.RedisError: Redis cannot be asked.
        """
        if self._end is not None or self._held:
            raise redis_lock.AlreadyAcquired(f"{self._name} is held by its token {self._id}")
        wait = (self._expire if timeout is None else timeout) if blocking else 0.0
        deadline = time.monotonic() + wait
        while not self._take():
            left = deadline - time.monotonic()
            if left <= 0 or self._unwanted.is_set():
                return False
            self._client.blpop(self._signal, min(left, BLPOP_TIMEOUT))
        return True

    def release(self) -> bool:
        """Give it back; never raises.

        Returns:
            Whether it was ours to the end. If not, that is logged as `lock.lost`; another may have
            worked meanwhile.
        """
        end, self._end = self._end, None
        if end is None:
            return False
        end.set()
        kept = not self._lost and time.monotonic() < self._sure_until
        try:
            told = (self._id, self._signal_expire)
            gone = self.unlock_script(
                client=self._client, keys=(self._name, self._signal), args=told
            )
        except (RedisError, OSError) as error:
            log.warning("lock.left", lock=self._name, error=str(error) or type(error).__name__,
                        hint=f"it ends by itself in {self._expire} s at most")  # fmt: skip
        else:
            kept = kept and not gone
        if not kept:
            self._tell_lost()
        return kept

    def __enter__(self) -> Self:
        if not self.acquire(blocking=True):
            raise LockTaken(f"another holds {self._name}; try again later, or leave it to that one")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        self._unwanted.clear()
        entering = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread goes on for a moment, and may yet get what nobody wants any more.
            self._unwanted.set()
            entering.add_done_callback(self._give_up)
            raise

    async def __aexit__(self, *_: object) -> None:
        # Shielded, for a cancelled body has to give it back all the same.
        await asyncio.shield(asyncio.to_thread(self.release))

    def _give_up(self, entering: asyncio.Future[Self]) -> None:
        if not entering.cancelled() and entering.exception() is None:
            threading.Thread(target=self.release, name="lock-release", daemon=True).start()

    def _take(self) -> bool:
        asked = time.monotonic()
        taken = self._client.set(self._name, self._id, nx=True, ex=self._expire)
        # It is ours, too, if the reply was lost and the client has asked twice.
        if not taken and not self._held:
            return False
        self._lost, self._sure_until, self._end = False, asked + self._expire, threading.Event()
        told = (weakref.ref(self), self._end, self._expire / 3)
        threading.Thread(target=_keep, args=told, name="lock-renewal", daemon=True).start()
        return True

    def _renew(self) -> float | None:
        """Seconds until the next renewal, sooner after a failure; None: the lock is lost."""
        asked, period = time.monotonic(), self._expire / 3
        try:
            self.extend()
        except redis_lock.NotAcquired:
            return None
        except (RedisError, OSError):
            return min(period, RETRY_AFTER) if time.monotonic() < self._sure_until else None
        self._sure_until = asked + self._expire
        return float(period)

    def _tell_lost(self) -> None:
        if not self._lost:
            self._lost = True
            log.warning("lock.lost", lock=self._name, hint="another may have worked at the same "
                        "time; see whether Redis, or this process, stood still")  # fmt: skip


def _keep(lock: weakref.ref[EventLock], end: threading.Event, wait: float) -> None:
    """Renew the lock until its release, or until nobody refers to it any more."""
    while not end.wait(wait):
        held = lock()
        if held is None:
            return
        again = held._renew()
        if again is None:
            # Released meanwhile, it is not lost.
            if not end.is_set():
                held._tell_lost()
            return
        wait = again
        del held
