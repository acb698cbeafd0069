"""The settings' documentation comes from their models, and `.env.example` with it."""

from __future__ import annotations

import sys

import pytest
from dotenv import dotenv_values

from flybridge.bridge.config.environment import PREFIX
from flybridge.bridge.config.settings import BridgeSettings
from tests.project import ROOT


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import setting_texts

    yield setting_texts
    del sys.modules["setting_texts"]


def test_the_example_is_as_the_models_say(texts) -> None:
    written = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert written == texts.env_example(), "run: .venv/bin/python docs/_ext/setting_texts.py"


def test_the_example_names_every_setting_with_its_default(texts) -> None:
    given = dotenv_values(ROOT / ".env.example")
    assert set(given) == {PREFIX + name.upper() for name in BridgeSettings.model_fields}
    assert given["FLYBRIDGE_EVENT_LEASE"] == "30"
    assert given["FLYBRIDGE_MEMORY_THRESHOLD"] == "0.85"
    assert given["FLYBRIDGE_APP_SECRET"] == ""


def test_every_setting_says_what_it_is_and_what_it_accepts(texts) -> None:
    for setting in texts.settings():
        assert setting.summary.endswith("."), setting.variable
        assert setting.accepts, setting.variable
