"""The pages of the documentation, and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
PAGES = (*READMES, *sorted(DOCS.rglob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text(page: Path | str) -> str:
    """What stands in a page; a path may be given from the repository's root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: Path | str, language: str = "python") -> list[str]:
    """The code blocks of a page that are in this language."""
    return [code for found, code in _FENCE.findall(text(page)) if found == language]


def fenced(page: Path | str) -> list[tuple[str, str]]:
    """All code blocks of a page: language and code."""
    return [(found[0], found[1]) for found in _FENCE.findall(text(page))]


def prose(page: Path | str) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", text(page))
