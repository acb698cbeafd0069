"""The Python samples of README and docs, by what they are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import PAGES, ROOT, blocks


def _module(page: Path) -> str:
    return re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))


SAMPLES = {
    f"{_module(page)}_{number}": code for page in PAGES for number, code in enumerate(blocks(page))
}
"""By a name that a module may have."""

PROGRAMS = {
    name: code
    for name, code in SAMPLES.items()
    if "service.run()" in code or "async def main()" in code
}
"""They need a Redis and a Feishu: `test_programs.py` runs them."""

TESTS = {name: code for name, code in SAMPLES.items() if "def test_" in code}
MODULES = {
    name: code for name, code in SAMPLES.items() if name not in PROGRAMS and name not in TESTS
}

HANDLERS = f"{MODULES['README_0']}\n\n{MODULES['docs_tutorial_failing_0']}"
"""What pages suppose to be in `my_handlers.py`."""
