"""Decodes JSON with damaged characters: Feishu sends texts that are cut inside a character.

Half of a surrogate pair, and bytes that are not UTF-8, become U+FFFD. Any other fault in the JSON
is an error. Undamaged text is decoded once, at full speed.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

DAMAGED = "\N{REPLACEMENT CHARACTER}"

_decode = msgspec.json.Decoder().decode

# Matches an escaped backslash, a whole surrogate pair, and (the group) half of a pair alone.
_ESCAPES = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode(text: bytes | str) -> Any:
    """Decode JSON, with U+FFFD in the place of damaged characters.

    Raises:
        ValueError: it is not JSON.
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
