"""Every field of every event that the official SDK has a model of can be read by ours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flybridge.handlers.payloads import Payload, payload_model
from flybridge.handlers.samples import sample_types

pytestmark = pytest.mark.interop


def test_no_field_of_the_sdks_models_has_an_unexpected_shape(interpreter: Path) -> None:
    script = Path(__file__).with_name("sdk_shapes.py")
    told = subprocess.run(
        [interpreter, "-W", "ignore", script], capture_output=True, check=True, timeout=60
    )
    bodies: dict[str, Any] = json.loads(told.stdout)
    assert len(bodies) > 150
    modelled = [name for name in bodies if payload_model(name) is not Payload]
    assert len(modelled) > 30
    assert set(sample_types()) & set(bodies) >= set(modelled)
    for name in modelled:
        unexpected: list[str] = []
        payload_model(name).model_validate(bodies[name], context=unexpected)
        assert (name, unexpected) == (name, [])
