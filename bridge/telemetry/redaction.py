"""Takes secrets out of texts that leave the process: log lines, spans, dead letters, answers.

By position: what a URL, a `name=value` or a field shows to be a secret. By text: the secrets that
this process was told of, wherever they occur, but only those that stand out. A short or ordinary
one, like `redis`, would garble other words, and the gaps would show what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib import parse

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

REDACTED = "[redacted]"

SHORTEST = 8
"""Characters of a secret, at least, that is searched for in texts."""

LONG = 16
"""Characters from which on a secret may consist of only letters or digits."""

_NAMES = (
    r"secret|token|ticket|(?:access|api|private)[_-]?key|passw(?:or)?d|passphrase|credential"
    r"|authorization"
)
_NAME = re.compile(_NAMES, re.IGNORECASE)
# Each part is bounded, or begins with a fixed text: anybody may make a text long, and none may take
# time by the square of its length.
_PAIR = re.compile(
    rf"""(?P<name>(?:{_NAMES})\w{{0,40}}\\{{0,8}}["']?\s{{0,8}}[=:]\s{{0,8}})"""
    r"""(?!(?:(?:bearer|basic)\s{1,8})?\[redacted\])"""
    r"""(?:(?P<mark>b?(?P<quote>\\{0,8}["']))(?:(?!(?P=quote)).)*(?P=quote)?"""
    r"""|(?P<scheme>(?:(?:bearer|basic)\s{1,8})?)[^\s"'&,;)}\]\\]+)""",
    re.IGNORECASE,
)
_URL = re.compile(
    r"://(?P<user>[^\s\"'<>]{0,1024}@)?(?P<place>[^\s?#\"'<>]*)(?P<query>\?[^\s#\"'<>]*)?"
)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that move a terminal, turn the direction of its text, or cannot be written; without
tab and line feed, which tracebacks have."""
_ORDINARY = re.compile(r"[A-Za-z]?[a-z]*|\d*")


class Redactor:
    """A structlog processor that takes secrets out of all values of an event, nested ones too.

    Args:
        secrets: texts that must appear nowhere, like the app secret.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(filter(None, secrets))
        spellings = {form for text in self.secrets if _stands_out(text) for form in _forms(text)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._texts = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {key: self.field(key, value) for key, value in event.items()}

    def field(self, name: str, value: Any) -> Any:
        """The value of a field or an attribute, as it may be shown."""
        return REDACTED if _NAME.search(name) else self._value(value)

    def _value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.field(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(item) for item in value]
        return self.text(value if isinstance(value, str) else repr(value))

    def text(self, text: str) -> str:
        """`text` without secrets, and with escaped control characters, which move a terminal."""
        text = self._texts.sub(REDACTED, text)
        if "://" in text:
            text = _URL.sub(_bare_url, text)
        text = _PAIR.sub(_bare_pair, text)
        return _CONTROL.sub(_spelt, text)


_known = Redactor()


def redactor() -> Redactor:
    """The redactor for the secrets that this process was told of so far."""
    return _known


def keep_secret(secrets: Iterable[str]) -> None:
    """Add secrets that this process must not show."""
    global _known
    _known = Redactor(_known.secrets.union(secrets))


def redact(text: str) -> str:
    """`text` without the secrets that this process was told of."""
    return _known.text(text)


def _stands_out(secret: str) -> bool:
    if len(secret) >= LONG:
        return True
    return len(secret) >= SHORTEST and not _ORDINARY.fullmatch(secret)


def _forms(secret: str) -> set[str]:
    """The secret as it is, and as URLs, JSON and reprs write it."""
    urls = {parse.quote(secret, safe=""), parse.quote(secret), parse.quote_plus(secret)}
    return {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], *urls}


def _spelt(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _bare_url(url: re.Match[str]) -> str:
    user, place, query = url.groups()
    return f"://{f'{REDACTED}@' if user else ''}{place}{f'?{REDACTED}' if query else ''}"


def _bare_pair(pair: re.Match[str]) -> str:
    name, mark, quote, scheme = pair.group("name", "mark", "quote", "scheme")
    return f"{name}{mark}{REDACTED}{quote}" if mark else f"{name}{scheme}{REDACTED}"
