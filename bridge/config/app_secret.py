"""The app secret. A secret file is read again for each discovery, so that a changed secret is used
without a restart.
"""

from __future__ import annotations

from pathlib import Path

from flybridge.bridge.config.text_files import FileUnreadable, read_text
from flybridge.bridge.telemetry.redaction import keep_secret
from flybridge.handlers.loggers import get_logger

MAX_SECRET = 4096
"""Characters; longer text is no secret."""

log = get_logger(__name__)


class AppSecret:
    """The App Secret of one app.

    Args:
        secret: the secret that the settings held.
        file: the file it came from, read again by `current`. A pipe can be read only once.
    """

    def __init__(self, secret: str, file: Path | None = None) -> None:
        self._secret = secret
        self._file = file.absolute() if file is not None and file.is_file() else None
        self._trouble = ""

    def current(self) -> str:
        """The secret to use now. If the file cannot be read, the last one stays in use."""
        read = self._read(self._file) if self._file is not None else ""
        if read not in ("", self._secret):
            self._secret = read
            keep_secret([read])
        return self._secret

    def has_changed(self) -> bool:
        """Whether `current` would return another secret than the last time."""
        return self._file is not None and self._read(self._file) not in ("", self._secret)

    def _read(self, file: Path) -> str:
        """The file's content; empty when it cannot be read, which is logged once."""
        secret = trouble = ""
        try:
            secret = read_secret(file)
        except FileUnreadable as error:
            trouble = str(error)
        if trouble not in ("", self._trouble):
            cure = "give it back its secret; the last one is used meanwhile"
            log.warning("secret.unreadable", file=str(file), reason=trouble, cure=cure)
        self._trouble = trouble
        return secret


def read_secret(file: Path) -> str:
    """The secret in a file, without surrounding whitespace.

    Raises:
        FileUnreadable: the file holds no secret, or more than one.
    """
    secret = read_text(file).strip()
    if not secret:
        raise FileUnreadable("is empty; write the App Secret into it")
    if len(secret) > MAX_SECRET or len(secret.splitlines()) > 1:
        raise FileUnreadable("holds more than a secret; write the App Secret alone into it")
    return secret
