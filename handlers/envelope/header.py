"""Reads the header of an envelope, for the bridge and for `Event`.

Feishu sends two kinds of envelope. A 2.0 envelope has `schema`, `header` and `event`. A 1.0
envelope has `uuid`, `ts` and `event`, with `type`, `app_id` and `tenant_key` among the fields of
the body. Only the shape tells them apart: `schema` may be on both, or on neither. Ids and keys come
as text or as numbers, times in several units and under two names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flybridge.handlers.envelope.timestamps import microseconds
from flybridge.handlers.errors import EventInvalid

ENCRYPTED = (
    "an encrypted envelope, as webhooks send it; the long connection is not encrypted: remove the "
    "Encrypt Key in Feishu's console, or decrypt the envelope before it is published"
)
CHALLENGE = "a url_verification request of a webhook, which is not an event; do not publish it"

_SCHEMAS = frozenset({"", "1", "1.0", "2", "2.0"})
_MAX_ID = 10**20
"""Ids have at most 20 digits; str() refuses integers of thousands of digits."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an envelope says about its event."""

    event_id: str
    """Empty if the envelope has none, as with `url.preview.get`."""
    event_type: str
    """As Feishu sent it."""
    app_id: str
    tenant_key: str
    schema: str
    """`1.0` or `2.0`."""
    created_us: int | None
    """Unix microseconds; None when the envelope gives no readable time."""


def read_v2(header: Mapping[str, object]) -> Header:
    """Read the `header` object of a 2.0 envelope."""
    return Header(
        text(header.get("event_id")),
        text(header.get("event_type")),
        text(header.get("app_id")),
        text(header.get("tenant_key")),
        "2.0",
        # Feishu: some approval events name their time `event_create_time`, in decimal seconds.
        microseconds(header.get("create_time"), header.get("event_create_time")),
    )


def read_v1(uuid: object, ts: object, event: Mapping[str, object]) -> Header:
    """Read the header fields of a 1.0 envelope.

    Args:
        uuid: from the envelope itself. An approval has another `uuid` in its body, set by who made
            it; that one may repeat.
        ts: from the envelope.
        event: the body, or only its `type`, `app_id` and `tenant_key`.
    """
    return Header(
        text(uuid),
        text(event.get("type")),
        text(event.get("app_id")),
        text(event.get("tenant_key")),
        "1.0",
        microseconds(ts),
    )


def check_schema(schema: object) -> None:
    """Refuse an unknown `schema`; an absent one is accepted.

    Raises:
        EventInvalid: it is neither 1.0 nor 2.0.
    """
    if text(schema) not in _SCHEMAS:
        raise EventInvalid(f"schema {text(schema)[:32]!r} is neither 1.0 nor 2.0")


def text(value: object) -> str:
    """The value if it is a text, a number as text, "" for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(value) if -_MAX_ID < value < _MAX_ID else ""
