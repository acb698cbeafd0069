from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.config.environment import EnvFile, layers, parse, unknown_variables
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


# Files of variables


def read(text: str, **environ: str) -> EnvFile:
    return parse(text, ".env", environ)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A='a${b}c'", "a${b}c"),
        ("export A = 'a${b}c' # note", "a${b}c"),
        ("A='it\\'s #1'", "it's #1"),
        ('A="x y"', "x y"),
        ("A=p$q", "p$q"),
        ('A="p$q"', "p$q"),
        ("A=${HOST}:1", "h:1"),
        ('A="${HOST}:1"', "h:1"),
        ("A=${NONE:-d}:1", "d:1"),
        ("B=1\nA=${B}2", "12"),
        ("HOST=other\nA=${HOST}", "other"),
        ("A=1\nA=2", "2"),
        ("A=1\r\n", "1"),
        ("A=a#b", "a#b"),
        ("A=a # b", "a"),
        ("A=", ""),
    ],
)
def test_a_value_is_what_was_meant(text: str, value: str) -> None:
    assert read(text, HOST="h").values["A"] == value
    assert not read(text, HOST="h").problems


def test_a_variable_that_is_not_set_is_told_and_not_taken_for_nothing() -> None:
    text = "\n# a comment\nFLYBRIDGE_APP_SECRET=hush${b}\nOTHER=${b}\n"
    (problem,) = read(text).problems
    assert problem == (
        ".env, line 3, uses ${b} in FLYBRIDGE_APP_SECRET, and that is not set; "
        "set it, or put the value in single quotes if it is meant as written."
    )


def test_a_line_of_ours_that_cannot_be_read_is_told_and_others_are_left_alone() -> None:
    found = read("an odd line\nFLYBRIDGE_APP_SECRET='hush\nFLYBRIDGE_APP_ID=x\n")
    (problem,) = found.problems
    assert problem.startswith(".env, line 2, cannot be read; write NAME=value")
    assert "hush" not in problem
    assert found.values == {"FLYBRIDGE_APP_ID": "x"}


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    read(text)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="'\\")))
def test_in_single_quotes_a_value_stands_as_it_is_written(value: str) -> None:
    found = read(f"FLYBRIDGE_APP_SECRET='{value}'")
    assert found == EnvFile({"FLYBRIDGE_APP_SECRET": value}, ())
