"""Tracebacks are cut to the frames of the user's code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flybridge.handlers.calling.tracebacks import rendered, users_frames, users_line
from flybridge.handlers.loading.plugins import load


def mistaken() -> None:
    os.environ["NO_SUCH_VARIABLE_OF_OURS"]


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_the_line_is_the_users_where_python_raised() -> None:
    line = mistaken.__code__.co_firstlineno + 1
    assert users_line(caught(mistaken)) == f"{__file__}:{line}"


def test_an_error_from_python_alone_has_no_line_and_all_its_frames() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        inner = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    assert users_line(inner) == ""
    assert users_frames(inner) is inner.__traceback__


def test_what_leads_to_the_users_code_and_away_from_it_is_not_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "with_a_mistake.py"
    file.write_text("import os\n\ndef read():\n    os.environ['NO_SUCH_VARIABLE']\n\nread()\n")
    monkeypatch.syspath_prepend(tmp_path)
    error = caught(lambda: load(["with_a_mistake"], entry_points=False)).__context__

    assert isinstance(error, KeyError)
    assert users_line(error) == f"{file}:4"
    first = next(line for line in rendered(error).splitlines() if "File" in line)
    assert first == f'  File "{file}", line 6, in <module>'
    assert "plugins.py" not in rendered(error)
