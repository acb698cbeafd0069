"""Controls a local Feishu from another process or thread, by HTTP."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from flybridge.bridge.errors import BridgeError

_LONGEST_WAIT = 10.0  # seconds of one request; longer waits are several


class LocalFeishuRefused(BridgeError):
    """The local Feishu refused, or does not answer; the sentence is its own."""


class LocalControl:
    """A synchronous client of `/local/…`.

    Every method raises LocalFeishuRefused when nothing answers, or the answer is a refusal.

    Args:
        timeout: seconds for one answer.
    """

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout

    def push(self, envelope: Mapping[str, Any], *, count: int = 1) -> list[str]:
        """Push an event; returns the event ids. A `count` above 1 pushes copies under fresh ids."""
        answer = self._ask("/local/push", {"envelope": envelope, "count": count})
        return list(answer["event_ids"])

    def fault(self, name: str, **options: Any) -> dict[str, int | None]:
        """Inject a fault of `Faults`; returns the standing faults."""
        return dict(self._ask("/local/fault", {"fault": name, **options})["armed"])

    def status(self) -> dict[str, Any]:
        """Counters, connections, the number of owed events, standing faults."""
        return self._ask("/local/status")

    def event(self, event_id: str) -> dict[str, Any]:
        """State and attempts of one event."""
        return self._ask(f"/local/events/{quote(event_id)}")

    def wait_acked(self, event_ids: Iterable[str], timeout: float) -> None:
        """Wait until every event is acked.

        Raises:
            TimeoutError: after `timeout` seconds, or at once when one was given up.
        """
        ids, deadline = list(event_ids), time.monotonic() + timeout
        while ids:
            left = max(0.0, min(deadline - time.monotonic(), _LONGEST_WAIT))
            answer = self._ask("/local/wait", {"event_ids": ids, "timeout": left}, wait=left)
            if answer["given_up"]:
                raise TimeoutError(f"{len(answer['given_up'])} events were given up")
            ids = answer["owed"]
            if ids and time.monotonic() >= deadline:
                raise TimeoutError(f"{len(ids)} events are not acked after {timeout} s")

    def _ask(
        self, path: str, body: Mapping[str, Any] | None = None, *, wait: float = 0.0
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data)  # noqa: S310 (the caller's own URL)
        # Proxies of the environment are for the world outside, not for a server of ours.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=self.timeout + wait) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            with error:
                raise LocalFeishuRefused(_sentence(error)) from None
        except OSError as error:
            wrapped = getattr(error, "reason", error)
            cause = getattr(wrapped, "strerror", None) or wrapped
            raise LocalFeishuRefused(
                f"no local Feishu answers at {self.url} ({cause}); start it with `flybridge dev`"
            ) from None


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {error.code}"
