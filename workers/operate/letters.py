"""Finds, shows and purges the dead letters of a group; `replay.py` brings them back.

They are a stream, oldest first, without an index: an event's letter is found by looking through it,
a page at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.exceptions import ResponseError

from flybridge.bridge.store.scripts import Call, load, run_all
from flybridge.bridge.store.spoilt_keys import spoilt
from flybridge.bridge.store.streams import Keys
from flybridge.handlers.types import matches
from flybridge.workers.operate.stored import Stored, is_entry_id, scan


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant; empty fields admit all."""

    event_type: str = ""
    """A type or a pattern, such as `im.message.*`."""
    reason: str = ""

    def admits(self, letter: Stored) -> bool:
        """Whether a letter is among them."""
        if self.reason and letter.text("reason") != self.reason:
            return False
        return not self.event_type or matches(self.event_type, letter.event_type)


class Letters:
    """The dead letters of a group.

    Args:
        redis: a client whose commands may be repeated; the scripts bear it.
        who: stands in the audit, such as user@host.
    """

    def __init__(self, redis: Redis, keys: Keys, group: str, who: str) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._who = who
        self.stream = keys.dead(group)

    def count(self) -> int:
        """How many there are.

        Raises:
            StreamSpoilt: the key is no stream.
        """
        try:
            return int(self._redis.xlen(self.stream))
        except ResponseError as error:
            raise spoilt(self.stream, error) from error

    def newest(self, selection: Selection) -> Iterator[Stored]:
        """Those selected, the newest first."""
        letters = scan(self._redis, self.stream, newest_first=True)
        return filter(selection.admits, letters)

    def oldest(self, selection: Selection, before: int | None = None) -> Iterator[Stored]:
        """Those selected that are there now, the oldest first.

        Args:
            before: Unix ms; only letters that died earlier.
        """
        newest = next(scan(self._redis, self.stream, newest_first=True), None)
        if newest is None:
            return iter(())
        # What dies again while this goes on comes after `last`, and is left for another time.
        last = newest.id if before is None else f"({before}-0"
        return filter(selection.admits, scan(self._redis, self.stream, last=last))

    def find(self, names: Sequence[str]) -> dict[str, list[Stored]]:
        """The letters of each name, a letter's id or an event's; an empty list where none is.

        An event that died in a group made anew may have two.
        """
        found: dict[str, list[Stored]] = {name: [] for name in names}
        for name in filter(is_entry_id, found):
            found[name] = list(scan(self._redis, self.stream, name, name))
        missing = {name for name, letters in found.items() if not letters}
        if missing:
            for letter in scan(self._redis, self.stream):
                if letter.event_id in missing:
                    found[letter.event_id].append(letter)
        return found

    def envelope(self, letter: Stored) -> bytes | None:
        """Feishu's JSON of a letter; None when it has none or has gone."""
        rows: Any = self._redis.xrange(self.stream, letter.id, letter.id)
        fields = rows[0][1] if rows else {}
        envelope: bytes | None = fields.get(b"envelope")
        return envelope

    def states(self, event_ids: Iterable[str]) -> dict[str, str]:
        """Event id -> what the group has recorded: running, retry, done, dead, or nothing."""
        names = list(event_ids)
        with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hget(self._keys.state(self._group, name), "state")
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        return {
            name: answer.decode() if isinstance(answer, bytes) else ""
            for name, answer in zip(names, answers, strict=True)
        }

    def purge(self, letters: Sequence[Stored]) -> list[bool]:
        """Delete letters for good, with an entry in the audit; False where one had gone already.

        Raises:
            StreamSpoilt: a key is of a wrong type; nothing of that letter was deleted.
            redis.RedisError: repeat it; what is purged stays purged.
        """
        script = load("purge")
        calls = [
            Call(
                script,
                (self.stream, self._keys.audit, answer_key(self._keys)),
                (letter.id, self._group, self._who),
            )
            for letter in letters
        ]
        answers = run_all(self._redis, calls)
        for answer in answers:
            if isinstance(answer, Exception):
                raise spoilt(f"{self.stream} or {self._keys.audit}", answer)
        return [answer == b"purged" for answer in answers]


def answer_key(keys: Keys) -> str:
    """A fresh key under which a script remembers its answer, in case the reply is lost."""
    return f"{keys.prefix}:answer:{uuid4().hex}"
