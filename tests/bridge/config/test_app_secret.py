"""The app secret, read again from files that are changed, spoilt and mended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from flybridge.bridge.config.app_secret import MAX_SECRET, AppSecret


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("old\n")
    return path


def test_without_a_file_it_is_what_the_settings_say() -> None:
    secret = AppSecret("s")
    assert (secret.current(), secret.has_changed()) == ("s", False)


@pytest.mark.parametrize("content", [b"new", b"new\r\n", b"\xef\xbb\xbfnew\n", b"  new \n\n"])
def test_a_file_is_read_again_whatever_surrounds_the_secret(file: Path, content: bytes) -> None:
    secret = AppSecret("old", file)
    assert not secret.has_changed()
    file.write_bytes(content)
    assert secret.has_changed()
    assert secret.current() == "new"
    assert not secret.has_changed()


@pytest.mark.parametrize(
    "content", [None, b"", b" \n", b"\xef\xbb\xbf", b"\xff\xfeo\x00", b"x" * (MAX_SECRET + 1)]
)
def test_a_file_that_cannot_be_read_leaves_the_last_secret_and_is_told_once(
    file: Path, content: bytes | None
) -> None:
    secret = AppSecret("old", file)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with capture_logs() as logs:
        assert [secret.current() for _ in range(3)] == ["old"] * 3
        assert not secret.has_changed()
    assert [line["event"] for line in logs] == ["secret.unreadable"]
    file.write_text("new")
    assert secret.current() == "new"


def test_a_pipe_which_can_be_read_once_only_is_left_alone(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    secret = AppSecret("s", pipe)
    assert (secret.current(), secret.has_changed()) == ("s", False)
