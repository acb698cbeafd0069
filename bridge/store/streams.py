"""Key names in Redis, and the codec of stream entries.

Every key carries `{app}`, the app id in braces: a hash tag, so that all keys of one app share
a Cluster slot and one script may touch several. Times in entries are Unix milliseconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

OTHER = "other"
"""The stream name of event types that may not have a stream of their own."""

MAX_TYPES = 512
"""Streams per app. Further types share that of `OTHER`, so that no sender can fill Redis with
keys."""

_TYPE = re.compile(r"[A-Za-z0-9_.]{1,128}")
_EVENT_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The key names of one app."""

    app_id: str

    @property
    def prefix(self) -> str:
        return f"flybridge:{{{self.app_id}}}"

    @property
    def events(self) -> str:
        """The prefix of all event streams; the type follows."""
        return f"{self.prefix}:events:"

    def stream(self, event_type: str) -> str:
        """The stream of an event type, if it has only `[A-Za-z0-9_.]`; else that of `OTHER`."""
        name = event_type if _TYPE.fullmatch(event_type) else OTHER
        return self.events + name

    @property
    def types(self) -> str:
        """Set of the type names that have a stream."""
        return f"{self.prefix}:types"

    @property
    def subscriptions(self) -> str:
        """Set of what workers read, see `subscriber`. Nothing is trimmed before they have it."""
        return f"{self.prefix}:subscriptions"

    def starts(self, group: str) -> str:
        """Hash: event stream -> entry id after which the group began to read it, where that was not
        the first entry; see `begin.lua`.
        """
        return f"{self.prefix}:starts:{group}"

    @property
    def ages(self) -> str:
        """Hash of the streams whose ids do not tell how old an entry is; see `trim.lua`."""
        return f"{self.prefix}:ages"

    def workers(self, group: str) -> str:
        """Zset of the group's workers, by Redis' Unix ms of their last sign of life.

        A member is a JSON object with `name`, `group`, `host`, `pid`, `started_at` (Unix ms) and
        `queues`.
        """
        return f"{self.prefix}:workers:{group}"

    def handled(self, group: str) -> str:
        """Zset of what the group's workers handle, as JSON, by Redis' Unix ms of the last sign of
        life of a worker that handles just that.
        """
        return f"{self.prefix}:handled:{group}"

    def marks(self, group: str) -> str:
        """Zset: seconds for which a worker of the group keeps marks of what it has done, by Redis'
        Unix ms at which such a worker was last there.
        """
        return f"{self.prefix}:marks:{group}"

    @property
    def lease(self) -> str:
        return f"{self.prefix}:lease"

    @property
    def bridges(self) -> str:
        return f"{self.prefix}:bridges"

    def published(self, event_id: str) -> str:
        return f"{self.prefix}:published:{key_part(event_id)}"

    def buried(self, letter: str) -> str:
        """The marker of a dead letter of the bridge, by its digest."""
        return f"{self.prefix}:buried:{letter}"

    def states(self, group: str) -> str:
        """The prefix of all `state` keys; `key_part` of an event id follows."""
        return f"{self.prefix}:state:{group}:"

    def state(self, group: str, event_id: str) -> str:
        return self.states(group) + key_part(event_id)

    def locks(self, group: str) -> str:
        """The prefix of all lock names; `key_part` of an event id follows."""
        return f"{self.prefix}:{group}:"

    def lock_name(self, group: str, event_id: str) -> str:
        """The name to give to `redis_lock.Lock`, which prefixes it with `lock:`."""
        return self.locks(group) + key_part(event_id)

    def retries(self, group: str) -> str:
        """The prefix of the retries of a group; see `retries_of`."""
        return f"{self.prefix}:retries:{group}"

    def retries_of(self, group: str, stream: str) -> str:
        """Zset of the entries of one stream that wait for a retry, by the Unix ms of it."""
        return f"{self.retries(group)}:{stream}"

    def dead(self, group: str) -> str:
        return f"{self.prefix}:dead:{group}"

    def unhandled(self, group: str, event_type: str) -> str:
        """Zset of the ids of a type's dead letters with reason `unhandled`, by Unix ms."""
        return f"{self.prefix}:unhandled:{group}:{self.stream(event_type).rpartition(':')[2]}"

    def replay(self, group: str, event_type: str) -> str:
        """The stream of replayed events of a type, read by this group only."""
        return f"{self.prefix}:replay:{group}:{self.stream(event_type).rpartition(':')[2]}"

    def stalls(self, group: str) -> str:
        """Hash of the ordering and business keys that events wait for; see `watch.lua`."""
        return f"{self.prefix}:stalls:{group}"

    def clock(self, group: str) -> str:
        """Hash of what the group's workers saw of Redis' clock; see `clock.lua`."""
        return f"{self.prefix}:clock:{group}"

    def joined(self, group: str) -> str:
        """Hash of the event streams that the group has joined: the last entry id it had been given
        when it was forgotten, else empty; see `group.lua`.
        """
        return f"{self.prefix}:joined:{group}"

    def replays(self, group: str) -> str:
        """Set of the type names for which the group has a replay stream."""
        return f"{self.prefix}:replays:{group}"

    def order(self, group: str) -> str:
        """The prefix of the ordering keys: `:<event type>:<key>` follows."""
        return f"{self.prefix}:order:{group}"

    def business(self, group: str, digest: str) -> str:
        """The state key of the event that holds a business key, by a digest of handler and key."""
        return f"{self.prefix}:business:{group}:{digest}"

    @property
    def audit(self) -> str:
        """Stream of replays and purges by operators."""
        return f"{self.prefix}:audit"


EVERYTHING = "*"
"""The subscription of a group whose workers read all queues."""


def subscriber(subscription: str, event_type: str, queue: str) -> str:
    """The group of a subscription, if it covers a type; else empty.

    Args:
        subscription: `group|*`, `group|queue:<queue>` or `group|type:<event type>`.
        event_type: the name of a stream.
        queue: the default queue of the type.
    """
    group, _, covered = subscription.rpartition("|")
    return group if covered in {EVERYTHING, f"queue:{queue}", f"type:{event_type}"} else ""


BRIDGE_GROUP = "bridge"
"""The group of dead letters of the bridge itself: frames without a readable event."""


def key_part(event_id: str) -> str:
    """The event id as part of a key: itself if short and printable, else a digest."""
    if _EVENT_ID.fullmatch(event_id):
        return event_id
    return "sha256-" + hashlib.sha256(event_id.encode("utf-8", "surrogatepass")).hexdigest()


# A Struct, for thousands are made a second: a dataclass takes three times as long, and this one
# is nothing that the garbage collector has to visit.
class Entry(Struct, frozen=True, gc=False):
    """One event as an entry of a stream."""

    event_id: str
    event_type: str
    app_id: str
    tenant_key: str
    schema: str
    """`1.0` or `2.0`."""
    created_at: int
    """Unix ms; 0 when the envelope gives none."""
    received_at: int
    """Unix ms, the bridge's clock."""
    term: int
    """Of the leader that published it."""
    traceparent: str
    """W3C, of the publish span; empty without tracing."""
    tracestate: str
    envelope: bytes
    """Feishu's JSON, untouched."""
    replayed_at: int = 0
    """Unix ms of the replay; 0 for an event that came from Feishu."""
    first_trace: str = ""
    """Of a replayed event: the traceparent of its first trace, to link to."""

    @property
    def since(self) -> int:
        """Unix ms from which the event's age counts: its replay, else its creation."""
        return self.replayed_at or self.created_at or self.received_at

    def fields(self) -> list[bytes | str | int]:
        """Names and values in turn, as XADD takes them."""
        replay = ["replayed_at", self.replayed_at, "first_trace", self.first_trace]
        return [
            "event_id", self.event_id,
            "event_type", self.event_type,
            "app_id", self.app_id,
            "tenant_key", self.tenant_key,
            "schema", self.schema,
            "created_at", self.created_at,
            "received_at", self.received_at,
            "term", self.term,
            "traceparent", self.traceparent,
            "tracestate", self.tracestate,
            "envelope", self.envelope,
            *(replay if self.replayed_at else ()),
        ]  # fmt: skip

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Entry:
        """Read what `fields` wrote. Unknown fields are ignored, missing ones empty.

        Raises:
            ValueError: `event_id` or `envelope` is missing, or a number is not one.
        """
        get = fields.get
        event_id, envelope = get(b"event_id", b""), get(b"envelope")
        if not event_id or envelope is None:
            raise ValueError("entry has no event_id or no envelope; was it written by hand?")
        return cls(
            event_id=event_id.decode(),
            event_type=get(b"event_type", b"").decode(),
            app_id=get(b"app_id", b"").decode(),
            tenant_key=get(b"tenant_key", b"").decode(),
            schema=get(b"schema", b"").decode(),
            created_at=_number(get(b"created_at")),
            received_at=_number(get(b"received_at")),
            term=_number(get(b"term")),
            traceparent=get(b"traceparent", b"").decode(),
            tracestate=get(b"tracestate", b"").decode(),
            envelope=envelope,
            replayed_at=_number(get(b"replayed_at")),
            first_trace=get(b"first_trace", b"").decode(),
        )


def _number(text: bytes | None) -> int:
    """A whole number; 0 if the field is missing.

    Raises:
        ValueError: it is none, or has more than 64 bits.
    """
    number = int(text or 0)
    if not -(2**63) <= number < 2**63:
        raise ValueError("a number of more than 64 bits; was the entry written by hand?")
    return number
