"""Files as editors, shells and containers leave them: text, or a sentence; nothing hangs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from flybridge.bridge.config import text_files
from flybridge.bridge.config.text_files import MAX_BYTES, FileUnreadable, read_text


def trouble(path: Path) -> str:
    with pytest.raises(FileUnreadable) as caught:
        read_text(path)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_byte_order_mark_is_no_text(file: Path) -> None:
    file.write_bytes("\ufeffgrün\r\n".encode())
    assert read_text(file) == "grün\r\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("A=1\n# 中\n".encode("gbk"), "is no text in UTF-8, see line 2; save it as UTF-8"),
        ("A=1\n".encode("utf-16"), "is UTF-16, not UTF-8; save it as UTF-8"),
        ("A=1\n".encode("utf-16-be"), "has a NUL byte in line 1, so is no text"),
        ("\ufeffA=1\n".encode("utf-16-be"), "is UTF-16"),
        ("A=1\n".encode("utf-32"), "is UTF-16"),
        (b"A=1\nB=\0", "has a NUL byte in line 2"),
        (b"x" * (MAX_BYTES + 1), "is larger than 1024 KiB"),
    ],
)
def test_what_is_no_text_is_refused_and_not_repeated(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    assert trouble(file).startswith(said)
    assert ";" in trouble(file)


def test_what_is_no_file_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trouble(file) == "is not a file; give the path of one"
    file.mkdir()
    assert trouble(file).startswith("is a folder (Docker makes one")

    def forbidden(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    assert trouble(file) == "cannot be read: Permission denied; give a readable file"


def test_dev_null_is_empty_and_an_endless_device_is_too_large() -> None:
    assert read_text(Path("/dev/null")) == ""
    assert trouble(Path("/dev/zero")).startswith("is larger than")


def test_a_pipe_is_waited_for_and_can_be_asked_again(file: Path) -> None:
    os.mkfifo(file)
    writing = threading.Thread(target=file.write_text, args=("s3\n",))
    writing.start()
    assert [read_text(file), read_text(file)] == ["s3\n", "s3\n"]
    writing.join()


def test_a_pipe_of_the_shell_is_read() -> None:
    read, write = os.pipe()
    os.write(write, b"s3")
    os.close(write)
    try:
        assert read_text(Path(f"/dev/fd/{read}")) == "s3"
    finally:
        os.close(read)


def test_a_pipe_that_nobody_writes_or_closes_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "PIPE_TIMEOUT", 0.05)
    os.mkfifo(file)
    assert trouble(file).startswith("is a pipe that was not written and closed within")
    open_for_good = os.open(file, os.O_RDWR)
    os.write(open_for_good, b"half")
    assert trouble(file).startswith("is a pipe that was not written and closed within")
    os.close(open_for_good)
