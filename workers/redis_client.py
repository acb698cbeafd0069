"""The worker's Redis client; not the bridge's, which is asynchronous.

The scripts bear repetition, so one quick retry is safe; redis-py's ten would hide an outage.
"""

from __future__ import annotations

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry


def connect(url: str, block: float) -> Redis:
    """A client for the threads of one worker.

    Args:
        url: FLYBRIDGE_REDIS_URL.
        block: seconds that the longest blocking read waits; the socket's patience goes beyond it.
    """
    return Redis.from_url(
        url,
        protocol=2,
        socket_connect_timeout=5,
        socket_timeout=block + 5,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(ConstantBackoff(0.05), 1),
    )
