"""The peer: plain Celery on the Redis list transport, with late acks as a careful user has it."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

from celery import Celery
from notes import note, note_first

QUEUE = "celery"

app = Celery("peer", broker=os.environ.get("BENCH_REDIS"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def nothing(event: dict[str, Any]) -> None:
    """The same no-op."""


@app.task
def stamp(event: dict[str, Any]) -> None:
    """Note how old the event is."""
    note(time.time() - event["event"]["sent"])


@app.task
def wait(event: dict[str, Any]) -> None:
    """The same wait, in the only way that prefork has."""
    note_first()
    time.sleep(0.1)


def fill(client: Any, url: str, task: str, envelopes: list[tuple[str, bytes]]) -> None:
    """Fill the queue with messages that Celery itself has made, in all but the event id.

    One is sent by Celery, the others are its copies: sending all would take minutes.
    """
    first_id, first = envelopes[0]
    with Celery("sender", broker=url) as sender:
        sender.send_task(f"peer_celery.{task}", args=[json.loads(first)], task_id=first_id)
    message = json.loads(client.lrange(QUEUE, 0, 0)[0])
    client.delete(QUEUE)
    for start in range(0, len(envelopes), 1000):
        copies = [_copy(message, *each) for each in envelopes[start : start + 1000]]
        client.lpush(QUEUE, *copies)


def _copy(message: dict[str, Any], name: str, envelope: bytes) -> str:
    body = base64.b64encode(b"[[" + envelope + b'], {}, {"callbacks": null, "errbacks": null, '
                            b'"chain": null, "chord": null}]').decode()  # fmt: skip
    headers = message["headers"] | {"id": name, "root_id": name}
    properties = message["properties"] | {"correlation_id": name, "delivery_tag": name}
    return json.dumps(message | {"body": body, "headers": headers, "properties": properties})


def waiting(client: Any) -> int:
    """Messages not acknowledged yet."""
    with client.pipeline(transaction=True) as pipeline:
        return sum(pipeline.llen(QUEUE).hlen("unacked").execute())
