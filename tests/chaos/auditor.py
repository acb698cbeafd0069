"""Reads every stream from outside the system, in a thread, and notes what lies in it.

It is a consumer group of its own, as a subscriber in another language would be: what it has not
acknowledged may not be trimmed, and what it has not joined neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from flybridge.bridge.store.streams import BRIDGE_GROUP, EVERYTHING, Keys
from tests.chaos.history import DeadLetter, SeenEntry

GROUP = "auditor"
PERIOD = 0.1
COUNT = 500


class Auditor:
    """`with Auditor(...) as auditor:` reads until the block ends.

    Args:
        port: gives the port of the server to read from, which may change.
        keys: of the app.
        offset: monotonic seconds minus Unix seconds.
    """

    def __init__(self, port: Callable[[], int], keys: Keys, offset: float) -> None:
        self.entries: list[SeenEntry] = []
        self.dead_letters: list[DeadLetter] = []
        self.caught_up = threading.Event()
        """Set after every look that found nothing new."""
        self._port, self._keys, self._offset = port, keys, offset
        self._subscribed = False
        self._grouped: set[str] = set()
        self._seen: set[tuple[str, str]] = set()
        self._resumed: set[str] = set()
        """Streams of which nothing waits any more that we were given and did not get."""
        self._last: dict[str, bytes] = {"workers": b"0", BRIDGE_GROUP: b"0"}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="auditor", daemon=True)

    def __enter__(self) -> Auditor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        client, port = None, 0
        while not self._over.wait(PERIOD if self.caught_up.is_set() else 0):
            try:
                if client is None or port != self._port():
                    port = self._port()
                    # By itself the client would read on after a lost reply, past what it held.
                    client = Redis(
                        port=port, protocol=2, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)
                    )
                self._look(client)
            except (RedisError, OSError):
                # It is away, or was stopped; what it had given us last may be lost on the way,
                # and a replica in its place may know nothing of our latest groups.
                self._subscribed = False
                self._grouped.clear()
                self._resumed.clear()
                self._over.wait(PERIOD)
        if client is not None:
            client.close()

    def _look(self, client: Any) -> None:
        if not self._subscribed:
            # Else a full Redis may be relieved of a new stream before we have joined it.
            client.sadd(self._keys.subscriptions, f"{GROUP}|{EVERYTHING}")
            self._subscribed = True
        names = [name.decode() for name in client.smembers(self._keys.types)]
        for stream in {self._keys.stream(name) for name in names} - self._grouped:
            self._join(client, stream)
        # One that could not be joined at the last look, as its server was a replica still, is
        # resumed later than the others.
        resuming = sorted(self._grouped - self._resumed)
        asked = dict.fromkeys(resuming, "0") or dict.fromkeys(sorted(self._grouped), ">")
        found = client.xreadgroup(GROUP, GROUP, asked, count=COUNT) if asked else []
        for stream, raw in found:
            for entry_id, fields in raw:
                self._take(stream.decode(), entry_id.decode(), fields)
            if raw:
                client.xack(stream, GROUP, *(entry_id for entry_id, _ in raw))
        self._resumed |= set(resuming) - {stream.decode() for stream, raw in found if raw}
        letters = self._look_at_letters(client)
        if letters or resuming or found:
            self.caught_up.clear()
        else:
            self.caught_up.set()

    def _join(self, client: Any, stream: str) -> None:
        try:
            client.xgroup_create(stream, GROUP, id="0")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                return  # it is full, or refuses writes; at the next look, then
        self._grouped.add(stream)

    def _look_at_letters(self, client: Any) -> int:
        """Dead letters have no groups; how many were new."""
        asked = {self._keys.dead(group): self._last[group] for group in self._last}
        for key, raw in (answer := client.xread(asked, count=COUNT)):
            group = key.decode().rpartition(":")[2]
            for entry_id, fields in raw:
                self._take_letter(group, fields)
                self._last[group] = entry_id
        return len(answer)

    def _take(self, stream: str, entry_id: str, fields: dict[bytes, bytes]) -> None:
        if (stream, entry_id) in self._seen:
            return
        self._seen.add((stream, entry_id))
        event_id = fields[b"event_id"].decode()
        added = int(entry_id.partition("-")[0]) / 1000 + self._offset
        term = int(fields.get(b"term", b"0"))
        self.entries.append(SeenEntry(stream.rpartition(":")[2], entry_id, event_id, term, added))

    def _take_letter(self, group: str, fields: dict[bytes, bytes]) -> None:
        event_id = fields.get(b"event_id", b"").decode()
        payload = fields.get(b"envelope", b"") if group == BRIDGE_GROUP else b""
        self.dead_letters.append(DeadLetter(event_id, fields[b"reason"].decode(), payload))
