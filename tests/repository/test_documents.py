"""What the documents for contributors name is there."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.project import ROOT

DOCUMENTS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_a_document_names_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\(([^):#]+)\)", text)
    quoted = re.findall(
        r"`((?:tests|docs|deploy|bridge|workers|handlers|src|\.\w+)/[\w/.-]*)`", text
    )
    paths = [path.rstrip(".") for path in (*links, *quoted) if "..." not in path]

    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_map_shows_every_room() -> None:
    shown = re.findall(r"^\| `(\w+/\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    rooms = [
        path.parent.relative_to(ROOT).as_posix()
        for package in ("bridge", "workers", "handlers")
        for path in (ROOT / package).glob("*/__init__.py")
    ]

    assert sorted(shown) == sorted(rooms)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_that_a_document_names_exist(name: str) -> None:
    named = re.findall(r"`make ([a-z]+)", (ROOT / name).read_text())

    assert set(named) <= TARGETS


def test_make_alone_lists_every_command_of_a_contributor() -> None:
    listed = subprocess.run(("make", "-C", ROOT), capture_output=True, text=True).stdout

    named = set(re.findall(r"^  ([a-z]+) +\S", listed, re.MULTILINE))
    assert named == TARGETS
