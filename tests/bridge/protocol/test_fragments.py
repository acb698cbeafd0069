from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.protocol import fragments
from flybridge.bridge.protocol.fragments import Fragments, PieceRefused


def refused(kept: Fragments, *piece: object) -> str:
    with pytest.raises(PieceRefused) as caught:
        kept.add(*piece)  # type: ignore[arg-type]
    return caught.value.reason


@given(st.data())
def test_sets_sent_in_any_order_and_interleaved_come_out_whole(data: st.DataObject) -> None:
    pieces = st.lists(st.binary(max_size=40), min_size=1, max_size=12)
    sets = data.draw(st.dictionaries(st.text(min_size=1), pieces, min_size=1, max_size=6))
    flat = [(name, seq) for name, parts in sets.items() for seq in range(len(parts))]
    kept, whole = Fragments(), {}
    for name, seq in data.draw(st.permutations(flat)):
        parts = sets[name]
        joined = kept.add(name, len(parts), seq, parts[seq], 0.0)
        if joined is not None:
            assert name not in whole
            whole[name] = joined
    assert whole == {name: b"".join(parts) for name, parts in sets.items()}
    assert (len(kept), kept.held) == (0, 0)


def test_a_repeated_piece_is_refused_and_the_first_one_stays() -> None:
    kept = Fragments()
    kept.add("m", 2, 0, b"first", 0.0)
    assert refused(kept, "m", 2, 0, b"second", 0.0) == "fragment_repeated"
    assert kept.add("m", 2, 1, b"!", 0.0) == b"first!"


def test_a_set_cannot_change_its_sum() -> None:
    kept = Fragments()
    kept.add("m", 2, 0, b"a", 0.0)
    assert refused(kept, "m", 3, 1, b"b", 0.0) == "sum_changed"
    assert kept.add("m", 2, 1, b"b", 0.0) == b"ab"


def test_a_set_above_its_size_is_dropped_with_all_it_held() -> None:
    kept = Fragments()
    kept.add("m", 3, 0, bytes(fragments.MAX_BYTES), 0.0)
    assert refused(kept, "m", 3, 1, b"x", 0.0) == "set_too_large"
    assert (len(kept), kept.held) == (0, 0)


def test_no_more_sets_than_allowed_and_none_is_harmed_by_one_too_many() -> None:
    kept = Fragments()
    for number in range(fragments.MAX_SETS):
        kept.add(f"m{number}", 2, 0, b"a", 0.0)
    assert refused(kept, "one too many", 2, 0, b"a", 0.0) == "sets_full"
    assert kept.add("m0", 2, 1, b"b", 0.0) == b"ab"
    assert kept.add("one too many", 2, 0, b"a", 0.0) is None


def test_all_sets_together_are_bounded_in_bytes() -> None:
    kept = Fragments()
    full = fragments.MAX_HELD // fragments.MAX_BYTES
    for number in range(full):
        kept.add(f"m{number}", 2, 0, bytes(fragments.MAX_BYTES), 0.0)
    assert refused(kept, "new", 2, 0, b"x", 0.0) == "sets_full"
    assert kept.held == fragments.MAX_HELD
    assert len(kept) == full


def test_a_set_ends_with_its_time_counted_from_its_first_piece() -> None:
    kept = Fragments()
    assert kept.next_expiry() == float("inf")
    kept.add("early", 3, 0, b"a", 100.0)
    kept.add("late", 2, 0, b"a", 110.0)
    kept.add("early", 3, 1, b"b", 120.0)
    assert kept.next_expiry() == 100.0 + fragments.SET_TTL
    kept.expire(129.9)
    assert (len(kept), kept.expired) == (2, 0)
    kept.expire(130.0)
    assert (len(kept), kept.expired, kept.held) == (1, 1, 1)


def test_a_piece_that_comes_too_late_begins_a_new_set() -> None:
    kept = Fragments()
    kept.add("m", 2, 0, b"old", 0.0)
    assert kept.add("m", 2, 1, b"b", 31.0) is None
    assert kept.add("m", 2, 0, b"new", 32.0) == b"newb"
    assert kept.expired == 1
