"""The rights that docs/operate/acl.md gives suffice, for bridge and worker."""

from __future__ import annotations

import re
import shlex

from tests.docs.pages import blocks
from tests.scenarios.stage import Stage, message
from tests.waiting import eventually

(COMMANDS,) = blocks("docs/operate/acl.md", "console")
RULES = [shlex.split(each) for each in COMMANDS.replace("\\\n", "").split("$ redis-cli ")[1:]]
"""Of the bridge and of the worker: the words of `ACL SETUSER`."""

TROUBLE = ("redis.denied", "redis.refused", "publish.failed", "trim.failed", "memory.unreadable")


async def test_bridge_and_worker_have_all_rights_that_they_need(stage: Stage) -> None:
    with stage.redis() as redis:
        for rule in RULES:
            redis.execute_command(*rule)
    url = stage.redis_server.url
    as_bridge, as_worker = (url.replace("//", f"//{who}:password@") for who in ("bridge", "worker"))

    # A short retention: the leader trims within the test.
    bridge = stage.bridge(redis_url=as_bridge, retention=1)
    worker = stage.worker(redis_url=as_worker, retention=1)
    await bridge.logged("feishu.connected")
    await worker.logged("intake.started")
    (event_id,) = stage.push(message())
    await eventually(lambda: stage.state(event_id) == "done")
    with stage.redis() as redis:
        await eventually(lambda: redis.xlen(stage.keys.stream("im.message.receive_v1")) == 0)
        refused = redis.acl_log()

    assert [each for each in refused if each["username"] in ("bridge", "worker")] == []
    assert [event for event in TROUBLE if bridge.lines(event) or worker.lines(event)] == []


async def test_a_worker_without_the_channels_handles_events_and_says_what_it_lacks(
    stage: Stage,
) -> None:
    _, rule = RULES
    channels = [each for each in rule if each.startswith("&")]
    with stage.redis() as redis:
        redis.execute_command(*(each for each in rule if each not in channels))
    await stage.leader()
    worker = stage.worker(redis_url=stage.redis_server.url.replace("//", "//worker:password@"))
    told = await worker.logged("redis.denied")
    (event_id,) = stage.push(message())
    await eventually(lambda: stage.state(event_id) == "done")

    assert set(re.findall(r"&[^; ]+", told["cure"])) == {channels[-1]}
    assert len(worker.lines("redis.denied")) == 1
    assert "Connection to broker lost" not in worker.log.read_text()
