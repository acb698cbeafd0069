"""The wheel and the sdist as users get them: one name, which clashes with nobody's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.project import ROOT

pytestmark = pytest.mark.timeout(180)  # it builds and installs

OLD_NAMES = ("bridge", "handlers", "workers")
SETTINGS = {
    "FLYBRIDGE_APP_ID": "cli_a1b2c3d4e5f60718",
    "FLYBRIDGE_REDIS_URL": "redis://127.0.0.1:1/0",
    "FLYBRIDGE_HANDLERS": "flybridge.handlers.builtin",
}
DJANGO = ("django==5.2.*", "asgiref", "sqlparse", "typing-extensions")

STRANGE = {
    **{f"{name}/__init__.py": "OWNER = 'strange'" for name in OLD_NAMES},
    "strange-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n",
    "strange-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    "strange-1.0.dist-info/RECORD": "",
}
"""A wheel that owns the old names."""

MODELS = """\
from django.db import models


class Thing(models.Model):
    name = models.TextField()
"""

HANDLER = """\
import django

django.setup()

from bridge.models import Thing as Bridge
from handlers.models import Thing as Handled
from workers.models import Thing as Worker
from flybridge import Context, Event, handles


@handles("im.message.receive_v1")
async def save(event: Event, context: Context) -> None:
    print("models of", *(each._meta.app_label for each in (Bridge, Handled, Worker)))
"""

TRY_IT = """\
from flybridge.testing import run
import feishu

assert run(feishu.save, "im.message.receive_v1").succeeded
"""


def run(
    *command: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run a Python command away from this checkout's own settings and paths."""
    ambient = {
        name: value for name, value in os.environ.items() if not name.startswith("FLYBRIDGE")
    }
    return subprocess.run(
        (sys.executable, *command),
        cwd=cwd,
        env={**ambient, **environment},
        capture_output=True,
        text=True,
    )


def succeed(*command: str | Path, **options: object) -> str:
    """Run a Python command that must end well; returns what it printed."""
    ended = run(*command, **options)  # type: ignore[arg-type]
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


class Distributions:
    """A wheel and an sdist of this checkout, and the wheel that the sdist makes."""

    def __init__(self, folder: Path) -> None:
        succeed("-m", "hatchling", "build", "-d", folder)
        (self.wheel,) = folder.glob("*.whl")
        (self.sdist,) = folder.glob("*.tar.gz")
        with tarfile.open(self.sdist) as archive:
            archive.extractall(folder, filter="data")
        sources = folder / self.sdist.name.removesuffix(".tar.gz")
        succeed("-m", "hatchling", "build", "-t", "wheel", "-d", folder / "again", cwd=sources)
        (self.wheel_of_sdist,) = (folder / "again").iterdir()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return Distributions(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def site(built: Distributions, tmp_path: Path) -> Path:
    """A folder of packages: our wheel, then one that owns the old names."""
    strange = tmp_path / "strange-1.0-py3-none-any.whl"
    with zipfile.ZipFile(strange, "w") as wheel:
        for name, text in STRANGE.items():
            wheel.writestr(name, text)
    folder = tmp_path / "site"
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--target", folder)
    succeed("-m", "pip", "install", *options, built.wheel, strange)
    return folder


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_one_name(built: Distributions) -> None:
    names = {name.partition("/")[0] for name in contents(built.wheel)}

    assert {name for name in names if not name.endswith(".dist-info")} == {"flybridge"}
    assert len(names) == 2


def test_the_wheel_holds_scripts_and_types(built: Distributions) -> None:
    files = contents(built.wheel)
    ours = [path for path in ROOT.glob("*/**/*.lua") if "tests" not in path.parts]

    assert "flybridge/py.typed" in files
    assert len([name for name in files if name.endswith(".lua")]) == len(ours)
    assert not [name for name in files if name.endswith((".pyc", ".env"))]


def test_the_sdist_builds_the_same_wheel(built: Distributions) -> None:
    assert built.wheel_of_sdist.name == built.wheel.name
    assert contents(built.wheel_of_sdist) == contents(built.wheel)


def test_the_version_is_that_of_the_newest_tag_and_there_is_one_without_git(
    tmp_path: Path,
) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    git = ("git", "-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false")

    def version_after(*commands: str) -> str:
        for command in commands:
            subprocess.run((*git, *command.split()), cwd=tmp_path, check=True, capture_output=True)
        return succeed("-m", "hatchling", "version", cwd=tmp_path).strip()

    assert version_after() == "0.1.0.dev0"
    assert version_after("init", "add .", "commit -m one").startswith("0.1.0.dev1+g")
    assert version_after("tag v1.2.3") == "1.2.3"
    assert version_after("commit --allow-empty -m two").startswith("1.2.4.dev1+g")


def test_it_runs_beside_packages_of_its_old_names(site: Path, tmp_path: Path) -> None:
    program = (
        "import flybridge, bridge, handlers, workers\n"
        "from flybridge import Event, Handler, handles\n"
        "import flybridge.bridge.builder, flybridge.workers.app\n"
        "print(flybridge.__file__, bridge.OWNER, handlers.OWNER, workers.OWNER)\n"
    )
    environment = {**SETTINGS, "PYTHONPATH": str(site)}

    said = succeed("-P", "-c", program, cwd=tmp_path, environment=environment)
    version = succeed("-P", "-m", "flybridge", "--version", cwd=tmp_path, environment=environment)

    assert said.split() == [str(site / "flybridge" / "__init__.py"), *["strange"] * 3]
    assert version.startswith("flybridge ")


@pytest.fixture
def django_project(tmp_path: Path) -> Path:
    """A Django project whose apps have the old names, and whose handler uses their models."""
    folder = tmp_path / "project"
    for name in OLD_NAMES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
        (folder / name / "models.py").write_text(MODELS)
    (folder / "site_settings.py").write_text(f"INSTALLED_APPS = {list(OLD_NAMES)!r}\n")
    (folder / "feishu.py").write_text(HANDLER)
    return folder


def test_it_runs_in_a_django_project_with_apps_of_its_old_names(
    built: Distributions, django_project: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    install = ("-m", "pip", "install", "--quiet", "--no-compile", "--target", site)
    fetched = run(*install, *DJANGO, environment={"PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "10"})
    if fetched.returncode:
        pytest.skip(f"Django is not to be had: {fetched.stderr.strip().splitlines()[-1]}")
    succeed(*install, "--no-deps", "--no-index", built.wheel)
    environment = {
        **SETTINGS,
        "FLYBRIDGE_HANDLERS": "feishu",
        "DJANGO_SETTINGS_MODULE": "site_settings",
        "PYTHONPATH": str(site),
    }

    report = ("-m", "celery", "-A", "flybridge.workers.app", "report")
    reported = succeed(*report, cwd=django_project, environment=environment)
    tried = succeed("-c", TRY_IT, cwd=django_project, environment=environment)

    assert "feishu" in reported
    assert tried.strip() == "models of bridge handlers workers"
