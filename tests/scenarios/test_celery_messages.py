"""Celery's broker beside the events: users' own tasks run, and no message can end a worker."""

from __future__ import annotations

import base64
import json
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

CELERY = str(Path(sys.executable).with_name("celery"))

BODY = b"[[1, 2], {}, {}]"


def celery_message(
    headers: object,
    body: bytes = BODY,
    content_type: object = "application/json",
    encoding: object = "utf-8",
    **properties: Any,
) -> str:
    """As kombu writes it into a list."""
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": content_type,
            "content-encoding": encoding,
            "headers": headers,
            "properties": {
                "delivery_tag": str(uuid.uuid4()),
                "delivery_info": {"exchange": "feishu", "routing_key": "im"},
                "priority": 0,
                "body_encoding": "base64",
                **properties,
            },
        }
    )


def task(name: object = "tests.scenarios.beside.add", **headers: Any) -> dict[str, Any]:
    return {"lang": "py", "task": name, "id": str(uuid.uuid4()), "retries": 0, **headers}


POISON: Iterable[str | bytes] = [
    # No message at all.
    "no JSON", "3", "[]", "null", "{}", '{"properties": 3}', b"\xff\xfe", "[" * 100_000,
    '{"properties": {"delivery_tag": ["t"], "delivery_info": {}}}',
    # One without a task, or with one that cannot be run so.
    celery_message({}), celery_message(None), celery_message([1]), celery_message({}, b"3"),
    celery_message({}, b'{"task": ["x"]}'), celery_message({}, b'{"task": "x", "args": 3}'),
    celery_message(task("feishu.im.message.receive_v1")), celery_message(task("feishu.other")),
    celery_message(task("no.such.task")), celery_message(task(["x"])), celery_message(task(None)),
    celery_message({"task": "no.such.task"}, b"garbage"),
    # A body in another language.
    celery_message(task(), b"garbage"), celery_message(task(), b"3"), celery_message(task(), b"{}"),
    celery_message(task(), content_type="application/x-python-serialize"),
    celery_message(task(), content_type="application/x-yaml"),
    celery_message(task(), content_type=7),
    celery_message(task(), b"\x93", "application/x-msgpack", "binary"),
    celery_message(task(), encoding="nope"),
    celery_message(task(compression="application/x-gzip")),
    # Options that make no sense.
    celery_message(task(eta="garbage")), celery_message(task(eta=5)),
    celery_message(task(expires="garbage")), celery_message(task(expires=[1])),
    celery_message(task(timelimit=3)), celery_message(task(timelimit=["a", "b"])),
    celery_message(task(group=9, root_id=7, shadow=9, stamps=7)),
    celery_message(task(), delivery_info=7), celery_message(task(), body_encoding="nope"),
]  # fmt: skip
"""What a stranger, another version or another program may have put there."""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
async def test_no_message_ends_a_worker_and_users_tasks_run_beside_the_events(
    stage: Stage, pool: str
) -> None:
    sums = stage.directory / "sums"
    told: dict[str, Any] = {"handlers": "tests.scenarios.beside", "SUMS": sums}
    prefix = f"{stage.keys.prefix}:celery:"
    with stage.redis() as redis:
        # Before the start, and while it runs; a priority has a list of its own.
        redis.lpush(f"{prefix}im", *POISON)
        redis.lpush(f"{prefix}im\x06\x163", "poison")
        redis.hset(f"{prefix}unacked", "t", "garbage")
        redis.zadd(f"{prefix}unacked_index", {"t": 1})
        worker = await stage.bridge_and_worker("--pool", pool, "--concurrency", "2", **told)
        await worker.logged("message.rejected")
        redis.lpush(f"{prefix}im", *POISON)
        for channel in redis.pubsub_channels(f"{prefix}*"):
            for garbage in ("no JSON", "3", "{}", '{"properties": {}, "body": "x"}'):
                redis.publish(channel, garbage)

        call = stage.run("call", CELERY, "-A", "flybridge.workers.app", "call",
                         "tests.scenarios.beside.add", "--args", "[40, 2]", **told)  # fmt: skip
        assert await call.ended() == 0
        event_ids = stage.push(message())
        await stage.settled(event_ids)
        await eventually(lambda: sums.exists() and "42\n" in sums.read_text())

        await eventually(lambda: not redis.exists(f"{prefix}im", f"{prefix}im\x06\x163"))
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    assert worker.process.poll() is None
    rejected = worker.lines("message.rejected")
    assert 0 < len(rejected) <= 30, "a flood of messages is no flood of lines"
    assert "garbage" not in "".join(line["reason"] for line in rejected)


async def test_a_worker_without_tasks_of_the_users_leaves_the_lists_to_those_with(
    stage: Stage,
) -> None:
    worker = await stage.bridge_and_worker("--pool", "threads")
    told = {"handlers": "tests.scenarios.acting"}
    name = "feishu.im.message.receive_v1"
    call = stage.run("call", CELERY, "-A", "flybridge.workers.app", "call", name, **told)
    assert await call.ended() == 0

    await worker.logged("messages.unread", queues="im", count=1)

    event_ids = stage.push(message())
    await stage.settled(event_ids)
    assert stage.counted() == dict.fromkeys(event_ids, 1)
    with stage.redis() as redis:
        assert redis.llen(f"{stage.keys.prefix}:celery:im") == 1
