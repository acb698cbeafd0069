"""What a user's type checker says, with the wheel and its dependencies and nothing else installed.

`pyright` is asked where it is on PATH: `npm install --global pyright`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.docs.samples import HANDLERS, SAMPLES
from tests.examples.conftest import EXAMPLES

pytestmark = pytest.mark.timeout(240)  # a type checker that knows nothing yet, on a busy machine

ROOT = EXAMPLES.parent.parent

THEIRS = """
from flybridge.handlers import Handler

database, surveys = "db-1", True


class Audit(Handler):
    def __init__(self, database: str) -> None: ...

    def handle(self, event: Event, context: Context) -> None:
        print(event.payload.any_field.of_any_depth)


class Survey(Handler):
    event_types = "im.message.receive_v1"

    def handle(self, event: Event, context: Context) -> None: ...
"""
"""What pages suppose to be in `my_handlers.py` besides."""

MISTAKES = """
from collections.abc import Sequence

from pydantic import BaseModel

from flybridge.bridge.builder import Builder
from flybridge.handlers import BatchContext, Context, Event, Handler, handles
from flybridge.handlers.payloads.im import MessageRead, MessageReceived


class Order(BaseModel):
    number: int


class Charge(Handler):
    async def handle(self, event: Event[Order], context: Context) -> str:
        event.payload.numbr  # mistake: field of an own model
        return event.payload.number  # mistake: return


def echo(event: Event[MessageReceived], context: Context) -> None:
    event.idd  # mistake: field of an event
    event.payload.massage  # mistake: field of a payload
    event.payload.message.chat  # mistake: field inside a payload
    event.read_as(Order).payload.numbr  # mistake: field of a payload read by hand
    read: MessageRead = event.payload  # mistake: payload of another type
    other: Event[MessageRead] = event  # mistake: event of another type
    context.handlers  # mistake: field of a context
    print(read, other)


def of_number(event: Event[int], context: Context) -> None: ...  # mistake: no model
def without_context(event: Event) -> None: ...
def turned_round(context: Context, event: Event) -> None: ...
def save(events: Sequence[Event], context: BatchContext) -> int: return 1
async def save_later(events: Sequence[Event], context: BatchContext) -> int: return 1
class NoHandler: ...


handles("im.message.receive_v1")(without_context)  # mistake: parameters
handles("im.message.receive_v1")(turned_round)  # mistake: their order
handles("im.message.receive_v1")(save)  # mistake: return of a batch handler
handles("im.message.receive_v1")(save_later)  # mistake: of a coroutine, too
handles("im.message.receive_v1")(NoHandler)  # mistake: class
handles("im.message.receive_v1", timeot=3)(echo)  # mistake: option
Builder().add_handler(Charge, "order", timeout="3")  # mistake: value of an option
Builder().use(NoHandler())  # mistake: middleware
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment as `pip install flybridge` makes it."""
    home = tmp_path_factory.mktemp("user")
    build = ("hatchling", "build", "--target", "wheel", "--directory", str(home))
    subprocess.run([sys.executable, "-m", *build], cwd=ROOT, check=True, capture_output=True)
    venv = ("venv", "--without-pip", str(home / "venv"))
    subprocess.run([sys.executable, "-m", *venv], check=True)
    python = home / "venv" / "bin" / "python"
    installed = home / "venv" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (wheel,) = home.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(installed)
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not _is_of_developers(each.name):
            (installed / each.name).symlink_to(each)
    return python


def _is_of_developers(name: str) -> bool:
    """Whether it is the project itself, or has types of libraries that users do not have."""
    return "flybridge" in name or name.endswith((".pth", "-stubs")) or name.startswith("types_")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every sample of README, docs and `deploy/examples`, and one module of mistakes."""
    directory = tmp_path_factory.mktemp("project")
    samples = {**SAMPLES, "my_handlers": HANDLERS + THEIRS, "mistakes": MISTAKES}
    for name, code in samples.items():
        (directory / f"{name}.py").write_text(code, encoding="utf-8")
    for example in EXAMPLES.glob("*.py"):
        shutil.copy(example, directory)
    return directory


EXPECTED = [
    ("mistakes.py", number)
    for number, line in enumerate(MISTAKES.splitlines(), start=1)
    if "# mistake" in line
]


def test_mypy_finds_all_mistakes_and_no_other(python: Path, project: Path, tmp_path: Path) -> None:
    options = ("--strict", "--config-file=", f"--cache-dir={tmp_path}")
    said = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--python-executable", str(python), "."],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = re.findall(r"^([\w/]+\.py):(\d+): error:", said, re.MULTILINE)
    assert sorted({(file, int(line)) for file, line in found}) == EXPECTED, said


@pytest.mark.skipif(not shutil.which("pyright"), reason="npm install --global pyright")
def test_pyright_finds_all_mistakes_and_no_other(python: Path, project: Path) -> None:
    said = subprocess.run(
        ["pyright", "--outputjson", "--pythonpath", str(python), "."],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = json.loads(said)["generalDiagnostics"]
    at = {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in found}
    assert sorted(at) == EXPECTED, said
