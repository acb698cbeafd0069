"""GitHub's workflows ask what `.ci/run` asks, of every supported Python, with least rights."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.project import ROOT

WORKFLOWS = {path.name: path.read_text() for path in (ROOT / ".github" / "workflows").iterdir()}
CI: dict[str, Any] = yaml.safe_load(WORKFLOWS["ci.yml"])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def commands(text: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z]+)", text))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit(name: str) -> None:
    used = re.findall(r"uses: (\S+)(.*)", WORKFLOWS[name])

    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_read_and_no_more(name: str) -> None:
    workflow = yaml.safe_load(WORKFLOWS[name])

    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())


def test_every_python_that_the_package_names_is_tried() -> None:
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    matrices = [
        job["strategy"]["matrix"]["python"] for job in CI["jobs"].values() if "strategy" in job
    ]

    assert PROJECT["requires-python"] == f">={named[0]}"
    assert matrices == [named] * 3  # lint, test, wheel


def test_the_workflow_runs_what_has_to_pass_before_a_change_lands() -> None:
    gate = commands((ROOT / ".ci" / "run").read_text())

    assert gate == {"lint", "docs", "test"}
    assert gate <= commands(WORKFLOWS["ci.yml"])
