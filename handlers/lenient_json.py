"""Decodes JSON in which a character is damaged: Feishu sends texts cut in the middle of one.

Half of a surrogate pair, and bytes that are not UTF-8, become U+FFFD. In everything else it is as
strict as any decoder. Undamaged text is decoded once, at full speed.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

DAMAGED = "\N{REPLACEMENT CHARACTER}"

_decode = msgspec.json.Decoder().decode

# An escaped backslash and a whole pair stay as they are; the third is a half that stands alone.
_ESCAPES = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode(text: bytes | str) -> Any:
    """Decode JSON, with U+FFFD in the place of damaged characters.

    Raises:
        ValueError: it is not JSON all the same.
        RecursionError: it is nested too deep.
    """
    try:
        return _decode(text)
    except ValueError:
        return _decode(mended(text.encode("utf-8", "replace") if isinstance(text, str) else text))


def mended(text: bytes) -> bytes:
    """JSON text with U+FFFD in the place of damaged characters, and without a byte order mark."""
    readable = text.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace").encode()
    return _ESCAPES.sub(lambda found: rb"\ufffd" if found[1] else found[0], readable)
