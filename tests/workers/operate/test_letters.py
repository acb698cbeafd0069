"""Dead letters: found by either id, a page at a time, whatever people wrote into their stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from flybridge.bridge.store.spoilt_keys import StreamSpoilt
from flybridge.bridge.store.streams import Entry, Keys
from flybridge.workers.operate import letter_text, stored
from flybridge.workers.operate.letters import Letters, Selection
from flybridge.workers.operate.stored import Stored, scan

Bury = Callable[..., str]


@pytest.fixture
def letters(redis: Redis, keys: Keys) -> Letters:
    return Letters(redis, keys, "workers", "ada@sea")


@pytest.fixture
def bury(redis: Redis, keys: Keys) -> Bury:
    """Put a letter there as settle.lua does; gives its id."""

    def bury(event_id: str, **changed: str | bytes | int) -> str:
        event = Entry(
            event_id, "im.message.receive_v1", "cli_test", "tk", "2.0", 1, 2, 3, "", "", b'{"a": 1}'
        )
        fields = event.fields()
        letter = {
            **dict(zip(fields[::2], fields[1::2], strict=True)),
            "reason": "attempts", "error": "ValueError: no", "handler": "acting:act",
            "attempts": 5, "finished": "", "stream": keys.stream(event.event_type),
            "entry": "1-1", "died_at": 4_000, **changed,
        }  # fmt: skip
        return redis.xadd(keys.dead("workers"), letter).decode()

    return bury


def ids(found: list[Stored]) -> list[str]:
    return [each.event_id for each in found]


def test_letters_come_in_pages_without_their_envelopes(redis, letters, bury, monkeypatch):
    monkeypatch.setattr(stored, "PAGE", 3)
    names = [f"ev{number}" for number in range(7)]
    for name in names:
        bury(name)
    assert ids(letters.oldest(Selection())) == names
    assert ids(letters.newest(Selection())) == names[::-1]
    assert all(b"envelope" not in each.fields and each.size == 8
               for each in letters.newest(Selection()))  # fmt: skip
    assert letters.count() == 7


def test_letters_are_selected_by_type_pattern_and_reason(letters, bury):
    bury("ev1", reason="age")
    bury("ev2", event_type="contact.user.created_v3")
    bury("ev3")
    assert ids(letters.oldest(Selection("im.*"))) == ["ev1", "ev3"]
    assert ids(letters.oldest(Selection("im.message.receive_v1", "age"))) == ["ev1"]
    assert ids(letters.oldest(Selection(reason="revoked"))) == []


def test_what_dies_while_letters_are_gone_through_is_left_for_another_time(letters, bury):
    bury("ev1")
    seen = []
    for letter in letters.oldest(Selection()):
        seen.append(letter.event_id)
        bury("ev1")
    assert seen == ["ev1"]


def test_letters_before_a_moment_are_those_that_died_earlier(letters, bury):
    early = int(bury("ev1").partition("-")[0])
    while int(bury("ev2").partition("-")[0]) == early:
        continue
    chosen = ids(letters.oldest(Selection(), early + 1))
    assert "ev1" in chosen
    assert ids(letters.oldest(Selection(), early)) == []


def test_a_letter_is_found_by_its_own_id_or_by_the_events(letters, bury):
    letter_id = bury("ev1")
    bury("ev2")
    bury("ev2")
    found = letters.find([letter_id, "ev2", "ev3", "1-1"])
    assert {name: ids(each) for name, each in found.items()} == {
        letter_id: ["ev1"],
        "ev2": ["ev2", "ev2"],
        "ev3": [],
        "1-1": [],
    }


def test_an_event_whose_id_looks_like_a_letters_is_found_too(letters, bury):
    bury("7-7")
    assert ids(letters.find(["7-7"])["7-7"]) == ["7-7"]


def test_a_purged_letter_is_gone_and_in_the_audit(redis, keys, letters, bury):
    bury("ev1")
    bury("ev2")
    (one,) = letters.find(["ev1"])["ev1"]
    assert letters.purge([one]) == [True]
    assert letters.purge([one]) == [False]
    assert ids(letters.oldest(Selection())) == ["ev2"]
    ((_, audit),) = redis.xrange(keys.audit)
    assert audit[b"action"] == b"purge"
    assert audit[b"who"] == b"ada@sea"
    assert audit[b"letter"] == one.id.encode()
    assert audit[b"event_id"] == b"ev1"


def test_a_purge_whose_reply_was_lost_says_so_again(letters, bury, monkeypatch):
    bury("ev1")
    monkeypatch.setattr(
        "flybridge.workers.operate.letters.answer_key", lambda keys: f"{keys.prefix}:answer:x"
    )
    (one,) = letters.find(["ev1"])["ev1"]
    assert letters.purge([one]) == [True]
    assert letters.purge([one]) == [True]


def test_states_are_those_of_the_group(redis, keys, letters):
    redis.hset(keys.state("workers", "ev1"), "state", "done")
    redis.set(keys.state("workers", "ev2"), "not a hash")
    assert letters.states(["ev1", "ev2", "ev3"]) == {"ev1": "done", "ev2": "", "ev3": ""}


def test_a_key_of_another_type_is_named(redis, keys, letters):
    redis.set(keys.dead("workers"), "not a stream")
    for look in (letters.count, lambda: list(letters.newest(Selection()))):
        with pytest.raises(StreamSpoilt, match="dead:workers is spoilt"):
            look()


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"event_id": ""}, "no event_id"),
        ({"term": "soon"}, "invalid literal"),
        ({"event_type": b"\xff"}, "can't decode"),
        ({f"f{number}": "x" for number in range(stored.FIELDS)}, "fields"),
    ],
)
def test_a_letter_changed_by_hand_is_shown_and_says_what_is_wrong(letters, bury, changed, fault):
    bury(**{"event_id": "ev1", **changed})
    (letter,) = letters.newest(Selection())
    assert fault in letter.fault
    assert letter_text.as_json(letter)
    assert list(letter_text.details(letter))
    assert list(letter_text.table([letter]))


def test_a_letter_with_hardly_any_field_can_be_shown(redis, keys, letters):
    redis.xadd(keys.dead("workers"), {"x": "y"})
    (letter,) = letters.newest(Selection())
    assert letter.size is None
    assert "no event_id" in letter.fault
    shown = "\n".join(letter_text.details(letter))
    assert "x           y" in shown
    assert "envelope    none" in shown


def test_what_a_letter_holds_cannot_move_the_terminals_cursor(letters, bury):
    bury("ev1", error="\x1b[2Jgone\nsecond line", extra="\x07")
    (letter,) = letters.newest(Selection())
    shown = "\n".join([*letter_text.table([letter]), *letter_text.details(letter)])
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[2Jgone" in shown


def test_details_name_times_trace_and_the_handlers_that_had_succeeded(letters, bury):
    bury("ev1", finished="a:one\nb:two", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    (letter,) = letters.newest(Selection())
    shown = "\n".join(letter_text.details(letter))
    assert "succeeded   a:one, b:two" in shown
    assert f"trace       {'a' * 32} (00-" in shown
    assert "died        1970-01-01T00:00:04Z" in shown
    assert "attempts    5" in shown
    assert '"a": 1' not in shown


def test_an_envelope_is_indented_if_it_is_json_and_harmless_if_not():
    assert letter_text.body('{"a":"好"}'.encode()) == '{\n  "a": "好"\n}'
    assert letter_text.body(b"\xff\x1b[2J") == "\\xff\\x1b[2J"


def test_a_window_of_a_stream_is_scanned_by_the_ids_of_its_entries(redis):
    for ms in range(1, 6):
        redis.xadd("s", {"event_id": f"ev{ms}"}, id=f"{ms}-1")
    assert ids(scan(redis, "s", "2-0", "4")) == ["ev2", "ev3", "ev4"]
