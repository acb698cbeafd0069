"""Reads small text files: settings or secrets. A pipe is read once and its text remembered.

Errors never repeat the content, which may be secret.
"""

from __future__ import annotations

import codecs
import os
import select
import stat
import time
from pathlib import Path

MAX_BYTES = 1024 * 1024
"""Bytes; larger files hold no settings."""

PIPE_TIMEOUT = 5.0
"""Seconds in which a pipe must be written and closed."""

_CHUNK = 65_536
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)

_drained: dict[tuple[str, int, int], bytes] = {}
"""The content of pipes that were read, by path, device and inode."""


class FileUnreadable(ValueError):
    """A file has no usable text. The message is the predicate of a sentence about the file."""


def read_text(path: Path) -> str:
    """The text of a file, a pipe or `/dev/null`, without a byte order mark.

    Raises:
        FileUnreadable: there is no file, it is too large, or no text in UTF-8.
    """
    try:
        content = _content(path)
    except OSError as error:
        raise FileUnreadable(_trouble(error)) from None
    if len(content) > MAX_BYTES:
        raise FileUnreadable(f"is larger than {MAX_BYTES // 1024} KiB; give another file")
    return _text(content)


def _content(path: Path) -> bytes:
    """At most one byte more than `MAX_BYTES`."""
    # Without O_NONBLOCK a named pipe that nobody writes to would be waited for without end.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        if not stat.S_ISFIFO(status.st_mode):
            return _drain(file)
        place = (str(path), status.st_dev, status.st_ino)
        if place not in _drained:
            _drained[place] = _drain_pipe(file)
        return _drained[place]
    finally:
        os.close(file)


def _drain(file: int) -> bytes:
    content = b""
    while len(content) <= MAX_BYTES and (chunk := os.read(file, _CHUNK)):
        content += chunk
    return content


def _drain_pipe(pipe: int) -> bytes:
    ready, ends, content = select.poll(), time.monotonic() + PIPE_TIMEOUT, b""
    ready.register(pipe, select.POLLIN)
    while len(content) <= MAX_BYTES:
        if not ready.poll(max(0.0, ends - time.monotonic()) * 1000):
            raise TimeoutError
        chunk = os.read(pipe, _CHUNK)
        if not chunk:
            break
        content += chunk
    return content


def _trouble(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not a file; give the path of one"
    if isinstance(error, IsADirectoryError):
        return "is a folder (Docker makes one where the file to mount is missing); give a file"
    if isinstance(error, TimeoutError):
        return f"is a pipe that was not written and closed within {PIPE_TIMEOUT:g} s; give a file"
    if isinstance(error, BlockingIOError):
        return "is a terminal; give a file"
    return f"cannot be read: {error.strerror}; give a readable file"


def _text(content: bytes) -> str:
    if content.startswith(_WIDE):
        raise FileUnreadable("is UTF-16, not UTF-8; save it as UTF-8 (PowerShell: -Encoding utf8)")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileUnreadable(f"is no text in UTF-8, see line {line}; save it as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise FileUnreadable(f"has a NUL byte in line {line}, so is no text; save it as UTF-8")
    return text
