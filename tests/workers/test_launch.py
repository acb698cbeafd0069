"""What `flybridge worker` hands on to Celery's processes, through the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from flybridge.bridge.config.settings import WorkerSettings
from flybridge.workers.launch import hand_on


@pytest.fixture(autouse=True)
def only_these_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/bin"})
    monkeypatch.chdir(tmp_path)


def handed_on(**flags: Any) -> WorkerSettings:
    hand_on(WorkerSettings.load(app_id="cli_a1", **flags))
    return WorkerSettings.load()


def test_the_app_reads_the_settings_that_the_command_line_was_given() -> None:
    settings = handed_on(
        handlers="a.b,c", group="audit", event_lease=2.5, parallel_handlers=False, log_level="off"
    )

    assert settings.handlers == ("a.b", "c")
    assert (settings.group, settings.event_lease) == ("audit", 2.5)
    assert settings.parallel_handlers is False
    assert settings.log_level == "off"


def test_what_the_seed_calls_it_does_not_contradict_what_is_handed_on() -> None:
    os.environ["FLYBRIDGE_ENABLE_LOGGING"] = "false"
    os.environ["FLYBRIDGE_PARALLEL_MULTI_HANDLERS"] = "false"

    settings = handed_on(log_level="debug", parallel_handlers=True)

    assert (settings.log_level, settings.parallel_handlers) == ("debug", True)
    assert "FLYBRIDGE_ENABLE_LOGGING" not in os.environ


def test_what_is_no_setting_of_a_worker_stays() -> None:
    os.environ["FLYBRIDGE_HEARTBEAT_INTERVAL_MS"] = "15000"
    handed_on()

    assert os.environ["FLYBRIDGE_HEARTBEAT_INTERVAL_MS"] == "15000"
    assert os.environ["PATH"] == "/bin"
