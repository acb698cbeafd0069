"""The ops port of a bridge, as a probe or an operator asks it. It waits for nothing."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class OpsPort:
    """Give `port` to a bridge as its setting `ops_port`."""

    port: int = field(default_factory=free_port)

    def ask(self, path: str) -> tuple[int, str]:
        """HTTP status and body; 0 and nothing while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def code(self, path: str) -> int:
        return self.ask(path)[0]

    def status(self) -> dict[str, Any]:
        """What `/status` says; empty while nobody listens."""
        body = self.ask("/status")[1]
        return dict(json.loads(body)) if body else {}

    def metrics(self) -> dict[str, float]:
        """Metric, followed by the values of its labels but `app`, → value; as Prometheus reads it.

        Empty while nobody listens.
        """
        found = {}
        for family in text_string_to_metric_families(self.ask("/metrics")[1]):
            for sample in family.samples:
                labels = [each for name, each in sample.labels.items() if name != "app"]
                found[" ".join([sample.name, *labels])] = sample.value
        return found
