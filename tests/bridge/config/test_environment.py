from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from flybridge.bridge.config.environment import layers, unknown_variables
from flybridge.bridge.config.settings import WorkerSettings
from flybridge.bridge.errors import SettingsInvalid


def test_an_unknown_variable_is_reported_with_the_nearest_known_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("FLYBRIDGE_REDIS_URI=redis://h\nOTHER=1\n")
    environ = {"FLYBRIDGE_APP_ID": "x", "FLYBRIDGE_ZZZZZZ": "1", "PATH": "/bin"}

    found = unknown_variables(["app_id", "redis_url"], environ)

    assert found == {"FLYBRIDGE_REDIS_URI": "FLYBRIDGE_REDIS_URL", "FLYBRIDGE_ZZZZZZ": ""}


@pytest.mark.usefixtures("no_settings")
def test_a_folder_named_env_is_some_tools_and_none_of_ours() -> None:
    Path(".env").mkdir()
    assert layers()[0] == ()


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("content", ["# 中\n".encode("gbk"), "A=1".encode("utf-16"), b"A=\0"])
def test_an_env_file_that_is_no_text_is_a_sentence(content: bytes) -> None:
    Path(".env").write_bytes(content)
    with pytest.raises(SettingsInvalid, match=r"^\.env (is|has) .*; .*save it as UTF-8.*\.$"):
        layers()


@pytest.mark.usefixtures("no_settings")
def test_an_env_file_may_be_a_pipe_that_is_written_once() -> None:
    os.mkfifo(".env")
    writing = threading.Thread(target=Path(".env").write_text, args=("FLYBRIDGE_APP_ID=cli_a1",))
    writing.start()
    assert WorkerSettings.load().app_id == "cli_a1"
    assert unknown_variables(["app_id"]) == {}
    writing.join()
