"""Entries of a stream as they are stored, for commands that show and choose them.

Envelopes stay in Redis. People edit streams by hand, so any field may be missing or odd. Workers
read `flybridge.bridge.store.streams.Entry`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from flybridge.bridge.store.scripts import Call, is_spoilt, load, run_all
from flybridge.bridge.store.spoilt_keys import spoilt
from flybridge.bridge.store.streams import Entry

PAGE = 200
"""Entries read at once."""

FIELDS = 500
"""More fields than an event ever has, and fewer than Lua can pass on."""

_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Stored:
    """One entry of a stream or one dead letter, whatever its fields are."""

    stream: str
    id: str
    fields: Mapping[bytes, bytes]
    """All but the envelope."""
    size: int | None
    """Bytes of the envelope; None when there is none."""

    @property
    def at(self) -> int:
        """Unix ms at which it came into the stream."""
        return int(self.id.partition("-")[0])

    @property
    def event_id(self) -> str:
        return self.text("event_id")

    @property
    def event_type(self) -> str:
        return self.text("event_type")

    def text(self, name: str) -> str:
        """A field as text; empty if missing, with bytes that are not UTF-8 spelt out."""
        return self.fields.get(name.encode(), b"").decode(errors="backslashreplace")

    def number(self, name: str) -> int:
        """A field as a whole number; 0 if it is missing or none."""
        text = self.text(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0

    @property
    def fault(self) -> str:
        """Why no event can be read from it; empty if one can."""
        if len(self.fields) > FIELDS:
            return f"entry has {len(self.fields)} fields; was it written by hand?"
        envelope = {} if self.size is None else {b"envelope": b""}
        try:
            Entry.from_fields({**self.fields, **envelope})
        except ValueError as error:
            return str(error)
        return ""


def is_entry_id(text: str) -> bool:
    """Whether the text has the shape of an entry's id, such as 1753776000000-0."""
    return _ID.fullmatch(text) is not None


def scan(
    redis: Redis, stream: str, first: str = "-", last: str = "+", *, newest_first: bool = False
) -> Iterator[Stored]:
    """The entries from the id `first` to the id `last`, page by page.

    Raises:
        StreamSpoilt: the key is no stream.
        redis.RedisError: Redis could not be asked.
    """
    command = "XREVRANGE" if newest_first else "XRANGE"
    while True:
        bounds = (last, first) if newest_first else (first, last)
        call = Call(load("scan"), (stream,), (command, *bounds, PAGE))
        (page,) = run_all(redis, [call])
        if isinstance(page, Exception):
            raise spoilt(stream, page)
        yield from (_stored(stream, row) for row in page)
        if len(page) < PAGE:
            return
        beyond = "(" + page[-1][0].decode()
        first, last = (first, beyond) if newest_first else (beyond, last)


def members(redis: Redis, key: str) -> list[str]:
    """The members of a set, sorted; those that someone made by hand may be anything.

    Raises:
        StreamSpoilt: the key is no set.
    """
    try:
        found: Any = redis.smembers(key)
    except ResponseError as error:
        if not is_spoilt(error):
            raise
        raise spoilt(key, error) from error
    return sorted(each.decode(errors="replace") for each in found)


def _stored(stream: str, row: Any) -> Stored:
    entry_id, size, parts = row
    fields = dict(zip(parts[::2], parts[1::2], strict=True))
    return Stored(stream, entry_id.decode(), fields, None if size < 0 else size)
