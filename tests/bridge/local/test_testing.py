"""The fixtures for users' tests: once as a user has them, in a session of his own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flybridge.bridge import testing
from flybridge.bridge.local import valkey
from flybridge.bridge.testing import FeishuOnThread, embedded_redis, feishu_on_thread, local_feishu

__all__ = ["embedded_redis", "local_feishu"]

MESSAGE = "im.message.receive_v1"

A_USERS_TESTS = """\
import asyncio

import pytest

from flybridge.bridge.testing import Flybridge
from flybridge.handlers import Context, Event, Handler, Reject

MESSAGE = "im.message.receive_v1"


class Greet(Handler):
    event_types = MESSAGE

    def __init__(self) -> None:
        self.texts = []

    async def handle(self, event: Event, context: Context) -> None:
        if "no" in event.payload.message.content:
            raise Reject("as the test wants it")
        self.texts.append(event.payload.message.content)


def test_push_and_wait(flybridge: Flybridge) -> None:
    greet = Greet()
    flybridge.add_handler(greet)
    assert flybridge.push(MESSAGE, {"message.content": "hi"}).settled() == "done"
    assert greet.texts == ['{"text": "hi"}']
    assert flybridge.push(MESSAGE, {"message.content": "no"}).settled() == "dead"


async def test_async_tests_push_too(flybridge: Flybridge) -> None:
    greet = Greet()
    flybridge.add_handler(greet)
    sent = [await asyncio.to_thread(flybridge.push, MESSAGE) for _ in range(3)]
    assert {await asyncio.to_thread(each.settled) for each in sent} == {"done"}
    assert len(greet.texts) == 3


def test_a_handler_may_come_later(flybridge: Flybridge) -> None:
    flybridge.add_handler(Greet)
    assert flybridge.push(MESSAGE).settled() == "done"
    seen = []
    flybridge.add_handler(lambda event, context: seen.append(event.id), "im.chat.updated_v1")
    sent = flybridge.push("im.chat.updated_v1")
    assert sent.settled() == "done"
    assert seen == [sent.event_id]


def test_each_test_has_a_redis_and_a_feishu_of_its_own(flybridge: Flybridge) -> None:
    assert not flybridge.redis.keys()
    assert flybridge.feishu.feishu.stats["pushed"] == 0
"""


def test_a_users_session_passes(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["flybridge.bridge.testing"]\n')
    (tmp_path / "test_theirs.py").write_text(A_USERS_TESTS)
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "-o", "asyncio_mode=auto"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "FLYBRIDGE_APP_ID": "another", "FLYBRIDGE_REDIS_URL": "redis://nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr
    assert "4 passed" in ended.stdout


def test_the_plugin_is_light() -> None:
    code = (
        "import sys, flybridge.bridge.testing\n"
        "heavy = {'redis', 'celery', 'websockets', 'handlers', 'pydantic', 'uvicorn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


# The local Feishu


@asynccontextmanager
async def _acking(connected: Any, url: str) -> AsyncIterator[None]:
    async with connected(url) as client:
        acking = asyncio.create_task(client.ack_all())
        yield
        acking.cancel()


async def test_an_event_is_pushed_and_its_ack_awaited(
    local_feishu: FeishuOnThread, connected: Any
) -> None:
    pushed = local_feishu.push(MESSAGE, {"message.content": "hi"})
    async with _acking(connected, local_feishu.url):
        attempt = await asyncio.to_thread(pushed.acked)
    assert (attempt.code, attempt.ending) == (200, "acked")
    event = json.loads(pushed.push.payload)["event"]
    assert event["message"]["content"] == '{"text": "hi"}'


async def test_an_envelope_is_pushed_as_it_is(local_feishu: FeishuOnThread, connected: Any) -> None:
    async with connected(local_feishu.url) as client:
        local_feishu.push({"made": "up"})
        assert (await client.receive()).payload == b'{"made":"up"}'


def test_who_waits_in_vain_is_told_why(local_feishu: FeishuOnThread) -> None:
    pushed = local_feishu.push(MESSAGE)
    with pytest.raises(TimeoutError, match=r"not acked after 0.05 s; 0 bridges are connected"):
        pushed.acked(timeout=0.05)


def test_a_mistake_in_a_push_is_raised_where_it_was_made(local_feishu: FeishuOnThread) -> None:
    with pytest.raises(ValueError, match="no sample of"):
        local_feishu.push("im.message.recieve_v1")


def test_a_server_that_cannot_start_is_the_tests_failure() -> None:
    with (
        feishu_on_thread() as first,
        pytest.raises(OSError, match="in use"),
        feishu_on_thread(port=int(first.url.rpartition(":")[2])),
    ):
        pytest.fail("two servers had one port")


# The Redis


def test_without_a_binary_the_test_is_skipped_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(valkey, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    fixture: Iterator[object] = testing.embedded_redis.__wrapped__()
    with pytest.raises(pytest.skip.Exception, match=r"pip install 'flybridge\[dev\]'"):
        next(fixture)
