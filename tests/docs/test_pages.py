"""What the documentation says of tests, files, logs, metrics and keys is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from flybridge.bridge.ops.metrics import StatusCollector
from flybridge.bridge.store.streams import Entry, Keys
from tests.docs.pages import DOCS, PAGES, READMES, ROOT, fenced, prose, text

PAIRS = [
    READMES,
    *((page, DOCS / "zh" / page.relative_to(DOCS)) for page in (DOCS / "tutorial").glob("*.md")),
]


def name(page: object) -> str:
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else ""


# The English and the Chinese pages


def outline(page: Path) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]


def code(page: Path) -> list[tuple[str, str]]:
    """Without comments, which are translated."""
    return [(language, re.sub(r" *#.*", "", block)) for language, block in fenced(page)]


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=name)
def test_a_translation_is_in_step(english: Path, chinese: Path) -> None:
    assert outline(chinese) == outline(english)
    assert code(chinese) == code(english)


def test_the_readme_is_short() -> None:
    assert [name(page) for page in READMES if len(text(page).splitlines()) > 150] == []


# What is named is there


@pytest.mark.parametrize("page", READMES, ids=name)
def test_a_readme_links_to_what_there_is(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", prose(page))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_of_the_repository_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:tests|deploy|bridge|workers|handlers)/[\w/.-]+)`", text(page))
    places = (ROOT, ROOT / "tests")  # the tables of tests leave out `tests/`
    assert [file for file in named if not any((each / file).exists() for each in places)] == []


def test_log_events_that_operators_are_told_of_are_in_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(DOCS / "_ext")
    from log_texts import log_events

    page = text("docs/operate/when-things-go-wrong.md")
    told = re.findall(r"^- \*\*Log\*\*:(.*?)(?=^- |^$)", page, re.DOTALL | re.MULTILINE)
    events = {event for entry in told for event in re.findall(r"`([a-z_]+\.[a-z_]+)[ `]", entry)}
    assert len(events) > 40
    assert events - log_events().keys() == set()


def test_metrics_that_pages_name_exist() -> None:
    known = {family.name for family in StatusCollector().describe()}
    known |= {f"{each}_total" for each in known}
    named = {each for page in PAGES for each in re.findall(r"\bfeishu_\w+", text(page))}
    assert len(named) > 8
    assert named - known == set()


# Keys and entries

ARGUMENTS = {
    "group": "<group>",
    "event_id": "<event id>",
    "event_type": "<type>",
    "stream": "<stream>",
    "letter": "<letter>",
    "digest": "<digest>",
}
BEGINNINGS = {"prefix", "events", "states", "locks", "lock_name", "retries", "order"}
"""Of `Keys`: what keys begin with, and what python-redis-lock puts its own word before."""


def bare(told: str) -> str:
    return re.sub(r"[<>_ ]", "", told)


PUBLIC = {name for name in vars(Keys) if not name.startswith("_")} - {"app_id"}


@pytest.mark.parametrize("attribute", sorted(PUBLIC - BEGINNINGS))
def test_every_key_is_described(attribute: str) -> None:
    key = getattr(Keys("app"), attribute)
    if callable(key):
        key = key(*(bare(ARGUMENTS[each]) for each in inspect.signature(key).parameters))
    assert f"`{bare(key)}" in bare(text("docs/reference/redis.md"))


def test_every_field_of_an_entry_is_described() -> None:
    page = text("docs/reference/redis.md").partition("## Fields of an entry")[2]
    first = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", "".join(first)) == list(Entry.__struct_fields__)
