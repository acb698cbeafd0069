"""The deployment files keep their promises, and name only what exists in the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flybridge.bridge.cli.local import LOCAL_PORT
from flybridge.bridge.cli.main import cli
from flybridge.bridge.config.environment import PREFIX
from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.local.feishu.server import APP_ID, APP_SECRET
from tests.project import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if name != "redis"}
DEMO = {name: each for name, each in SERVICES.items() if each.get("profiles") == ["demo"]}
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
VARIABLES = {PREFIX + field.upper() for field in BridgeSettings.model_fields}


@pytest.fixture(autouse=True)
def empty_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


def environment(name: str) -> dict[str, str]:
    return dict(SERVICES[name].get("environment", {}))


def settings_of(name: str) -> BridgeSettings:
    """What a bridge in this service would run with."""
    given = {key.removeprefix(PREFIX).lower(): value for key, value in environment(name).items()}
    return BridgeSettings.load(**given)


# Redis


def redis_conf() -> dict[str, str]:
    lines = (ROOT / "deploy" / "redis" / "redis.conf").read_text().splitlines()
    given = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return {name: value for name, value in given}  # noqa: C416 (lists of two)


def test_redis_keeps_what_it_was_given() -> None:
    conf = redis_conf()

    assert (conf["appendonly"], conf["appendfsync"]) == ("yes", "everysec")
    assert conf["maxmemory-policy"] == "noeviction"


def test_redis_reads_that_configuration_and_writes_to_a_volume() -> None:
    redis = SERVICES["redis"]
    mounts = dict(mount.split(":")[:2] for mount in redis["volumes"])

    assert mounts["./deploy/redis/redis.conf"] == redis["command"][-1]
    assert mounts["redis"] == redis_conf()["dir"]
    assert "redis" in COMPOSE["volumes"]
    assert "ports" not in redis


# Services


def test_two_bridges_run_so_that_one_can_take_over() -> None:
    assert SERVICES["bridge"]["deploy"]["replicas"] == 2
    assert SERVICES["demo-bridge"]["deploy"]["replicas"] == 2
    assert SERVICES["worker"]["command"] == ["worker"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_runs_a_command_that_exists_with_options_it_has(name: str) -> None:
    command, *arguments = OURS[name]["command"]
    known = {option for parameter in cli.commands[command].params for option in parameter.opts}

    assert {each for each in arguments if each.startswith("--")} <= known


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_runs_read_only_and_without_privileges(name: str) -> None:
    service = OURS[name]

    assert service["init"] is True
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_sets_only_variables_that_are_read(name: str) -> None:
    assert set(environment(name)) <= VARIABLES


@pytest.mark.parametrize("name", ["bridge", "worker", "demo-bridge", "demo-worker"])
def test_a_process_waits_for_redis_and_has_time_to_stop(name: str) -> None:
    service = SERVICES[name]

    assert service["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert int(service["stop_grace_period"].rstrip("s")) > 30
    assert environment(name)["FLYBRIDGE_REDIS_URL"] == "redis://redis:6379/0"


@pytest.mark.parametrize("name", ["bridge", "worker"])
def test_credentials_come_from_an_env_file_that_may_be_missing(name: str) -> None:
    assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]
    assert "profiles" not in SERVICES[name]


def test_a_bridges_health_is_asked_at_its_ops_port() -> None:
    port = environment("bridge")["FLYBRIDGE_OPS_PORT"]

    assert f"http://127.0.0.1:{port}/livez" in SERVICES["bridge"]["healthcheck"]["test"][-1]


# The demo


def test_the_demo_needs_no_credentials() -> None:
    assert set(DEMO) == {"feishu", "demo-bridge", "demo-worker", "demo"}
    assert not any("env_file" in service for service in DEMO.values())
    assert environment("demo-bridge")["FLYBRIDGE_APP_ID"] == APP_ID
    assert environment("demo-bridge")["FLYBRIDGE_APP_SECRET"] == APP_SECRET


@pytest.mark.parametrize("name", sorted(set(DEMO) - {"feishu"}))
def test_the_demo_reaches_the_local_feishu_over_loopback(name: str) -> None:
    assert DEMO[name]["network_mode"] == "service:feishu"
    assert settings_of(name).base_url == f"http://127.0.0.1:{LOCAL_PORT}"


def test_the_demo_starts_nothing_that_needs_credentials() -> None:
    assert {needed for each in DEMO.values() for needed in each.get("depends_on", ())} <= {
        *DEMO,
        "redis",
    }


# The image


def test_the_image_runs_the_command_as_an_ordinary_user_and_stops_by_sigterm() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]

    assert re.search(r"^USER [1-9]\d*$", final, re.MULTILINE)
    assert 'ENTRYPOINT ["flybridge"]' in final
    assert 'CMD ["run"]' in final
    assert "STOPSIGNAL SIGTERM" in final


def test_the_image_installs_locked_dependencies_only() -> None:
    installs = re.findall(r"pip install ([^&\n]*(?:\\\n[^&\n]*)*)", DOCKERFILE)

    assert len(installs) == 3
    assert all("--require-hashes" in each or "--no-index" in each for each in installs)


def test_what_the_image_copies_is_in_the_build_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }

    assert copied == {line.removeprefix("!") for line in ignored if line.startswith("!")}


# The locks


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.stem)
def test_a_lock_holds_hashes_but_no_registry_and_no_path(lock: Path) -> None:
    text = lock.read_text()

    assert "--hash=sha256:" in text
    assert not re.search(r"https?://|index-url|find-links|file:|^-e |^/", text, re.MULTILINE)
    assert all("==" in line for line in text.splitlines() if re.match(r"[A-Za-z]", line))


def test_workers_have_no_secret_of_the_bridges() -> None:
    """Handlers run in them, which may be anybody's code."""
    secrets = {f"{PREFIX}{name}" for name in ("APP_SECRET", "APP_SECRET_FILE", "TEXT_TOKEN")}
    assert secrets <= VARIABLES
    assert "env_file" in SERVICES["worker"]
    assert {name for name, value in environment("worker").items() if not value} == secrets
