"""The app secret as it is now: a file is read again for every discovery, so that a secret which was
changed in the console and in the file is used without a restart."""

from __future__ import annotations

from pathlib import Path

from bridge.redaction import keep_secret
from bridge.text_files import FileUnreadable, read_text
from handlers.loggers import get_logger

LARGEST = 4096
"""Characters; what is longer is no secret."""

log = get_logger("bridge.app_secret")


class AppSecret:
    """The secret of one app.

    Args:
        secret: what the settings held when they were loaded.
        file: where it came from; None, or no regular file (a pipe can be read once only): it stays.
    """

    def __init__(self, secret: str, file: Path | None = None) -> None:
        self._secret = secret
        self._file = file.absolute() if file is not None and file.is_file() else None
        self._trouble = ""

    def current(self) -> str:
        """The secret to use now: that of the file, or the last one that could be read."""
        read = self._read(self._file) if self._file is not None else ""
        if read not in ("", self._secret):
            self._secret = read
            keep_secret([read])
        return self._secret

    def has_changed(self) -> bool:
        """Whether `current` would give another secret than the last time."""
        return self._file is not None and self._read(self._file) not in ("", self._secret)

    def _read(self, file: Path) -> str:
        """The file's content; empty when there is none, which is logged once."""
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
    """The secret that a file holds, without what surrounds it.

    Raises:
        FileUnreadable: it holds none.
    """
    secret = read_text(file).strip()
    if not secret:
        raise FileUnreadable("is empty; write the App Secret into it")
    if len(secret) > LARGEST or len(secret.splitlines()) > 1:
        raise FileUnreadable("holds more than a secret; write the App Secret alone into it")
    return secret
