from __future__ import annotations

from pathlib import Path

import pytest

from bridge.environment import unknown_variables


def test_an_unknown_variable_is_reported_with_the_nearest_known_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("FLYBRIDGE_REDIS_URI=redis://h\nOTHER=1\n")
    environ = {"FLYBRIDGE_APP_ID": "x", "FLYBRIDGE_ZZZZZZ": "1", "PATH": "/bin"}

    found = unknown_variables(["app_id", "redis_url"], environ)

    assert found == {"FLYBRIDGE_REDIS_URI": "FLYBRIDGE_REDIS_URL", "FLYBRIDGE_ZZZZZZ": ""}
