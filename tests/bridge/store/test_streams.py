"""Key names and the codec of stream entries."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from flybridge.bridge.store.streams import OTHER, Entry, Keys, key_part, subscriber

KEYS = Keys("cli_test")

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBER = st.integers(0, 2**63 - 1)
ENTRIES = st.builds(
    Entry,
    event_id=TEXT.filter(bool), event_type=TEXT, app_id=TEXT, tenant_key=TEXT, schema=TEXT,
    created_at=NUMBER, received_at=NUMBER, term=NUMBER, traceparent=TEXT, tracestate=TEXT,
    envelope=st.binary(max_size=50), replayed_at=NUMBER, first_trace=TEXT,
)  # fmt: skip


def as_redis_has_it(fields: list[bytes | str | int]) -> dict[bytes, bytes]:
    raw = [each if isinstance(each, bytes) else str(each).encode() for each in fields]
    return dict(zip(raw[::2], raw[1::2], strict=True))


@given(ENTRIES)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    read = Entry.from_fields(as_redis_has_it(entry.fields()))
    if not entry.replayed_at:
        assert read.first_trace == ""
        read = Entry(**{**asdict(read), "first_trace": entry.first_trace})
    assert read == entry


def asdict(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"event_id": b"", b"envelope": b"{}"},
        {b"event_id": b"e"},
        {b"event_id": b"e", b"envelope": b"{}", b"term": b"soon"},
        {b"event_id": b"e", b"envelope": b"{}", b"created_at": b"9" * 30},
        {b"event_id": b"\xff", b"envelope": b"{}"},
    ],
)
def test_what_is_no_entry_is_a_value_error(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r"by hand|invalid literal|decode"):
        Entry.from_fields(fields)


def test_an_entry_that_others_wrote_may_lack_all_but_id_and_envelope() -> None:
    entry = Entry.from_fields({b"event_id": b"e", b"envelope": b"{}", b"more": b"x"})
    assert (entry.event_type, entry.term, entry.since) == ("", 0, 0)


def test_the_age_counts_from_the_replay_else_from_the_creation() -> None:
    entry = Entry.from_fields(
        {b"event_id": b"e", b"envelope": b"{}", b"created_at": b"2", b"received_at": b"3"}
    )
    assert entry.since == 2
    assert Entry(**{**asdict(entry), "replayed_at": 4}).since == 4
    assert Entry(**{**asdict(entry), "created_at": 0}).since == 3


def test_all_keys_of_an_app_are_in_one_slot_of_a_cluster_and_no_two_are_the_same() -> None:
    names = []
    for name, member in inspect.getmembers(Keys):
        if isinstance(member, property):
            names.append(getattr(KEYS, name))
        elif inspect.isfunction(member) and not name.startswith("_"):
            count = len(inspect.signature(member).parameters) - 1
            names.append(getattr(KEYS, name)(*["im.x", "y"][:count]))
    of_apps = [name for name in names if "{cli_test}" in name]
    assert of_apps == names
    assert {key_slot(name.encode()) for name in names} == {key_slot(b"cli_test")}
    assert len(names) > 25
    assert dataclasses.replace(KEYS, app_id="cli_b").lease != KEYS.lease


@pytest.mark.parametrize("odd", ["", "im x", "im:x", "a" * 129, "{im}", "日"])
def test_a_type_that_may_be_no_part_of_a_key_shares_the_other_stream(odd: str) -> None:
    assert KEYS.stream(odd) == KEYS.stream(OTHER)


@given(st.text())
def test_an_event_id_stands_in_a_key_as_printable_text_of_bounded_length(event_id: str) -> None:
    part = key_part(event_id)
    assert part.isascii()
    assert part.isprintable()
    assert 0 < len(part) <= 128
    assert " " not in part


@pytest.mark.parametrize(
    ("subscription", "group"),
    [
        ("g|*", "g"),
        ("g|queue:im", "g"),
        ("g|queue:contact", ""),
        ("g|type:im.x", "g"),
        ("g|type:im.y", ""),
        ("a|b|*", "a|b"),
        ("nonsense", ""),
    ],
)
def test_whom_a_subscription_holds_entries_for(subscription: str, group: str) -> None:
    assert subscriber(subscription, "im.x", "im") == group
