from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flybridge.handlers.envelope.lenient_json import DAMAGED, decode, mended


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb'"Lin\ud83d"', f"Lin{DAMAGED}"),
        (rb'"\ude00 Lin"', f"{DAMAGED} Lin"),
        (rb'"\ud83d\ud83d\ude00"', f"{DAMAGED}\N{GRINNING FACE}"),
        (rb'"\ude00\ud83d"', DAMAGED * 2),
        (rb'"\uD83D\uDE00 \ud83d"', f"\N{GRINNING FACE} {DAMAGED}"),
        (rb'"\\ud83d \ud83d"', rf"\ud83d {DAMAGED}"),
        (rb'"\\\ud83d"', f"\\{DAMAGED}"),
        (b'"Lin\xe6\x9d"', f"Lin{DAMAGED}"),
        (b'"Lin\xed\xa0\xbd"', f"Lin{DAMAGED * 3}"),
        (b'\xef\xbb\xbf"Lin"', "Lin"),
        ('"half \ud83d"', "half ?"),
    ],
)
def test_damaged_characters_are_replaced_and_nothing_else(text: bytes | str, read: str) -> None:
    assert decode(text) == read


@pytest.mark.parametrize("text", [b"", b"{", b'"\\ud83"', b'"\\x"', b"NaN", b"\xff", b'{"a":1} x'])
def test_what_is_not_json_stays_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whichever words the decoder has for it)
        decode(text)


@given(st.text(st.characters(codec=None), max_size=30))
@example("\ud83d\\ud83d")
def test_any_text_is_read_as_the_standard_library_reads_it(text: str) -> None:
    written = json.dumps(text)
    assert decode(written.encode()) == "".join(
        DAMAGED if "\ud800" <= letter <= "\udfff" else letter for letter in json.loads(written)
    )


@given(st.binary(max_size=60))
def test_mending_is_done_after_once(text: bytes) -> None:
    assert mended(mended(text)) == mended(text)


def test_it_takes_time_in_proportion() -> None:
    started = time.perf_counter()
    decode(b'"' + rb"\ud83d\\" * 200_000 + b'"')
    assert time.perf_counter() - started < 5.0
