"""`.env` as people write it: values as they are meant, or the line and what to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.config.environment import EnvFile, parse


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
