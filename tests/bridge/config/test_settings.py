"""Flag > environment > .env > default, and every problem at once, in an operator's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import certifi
import pytest

from flybridge.bridge.config.settings import BridgeSettings, WorkerSettings
from flybridge.bridge.errors import EXIT_SETTINGS, SettingsInvalid

pytestmark = pytest.mark.usefixtures("no_settings")

WORKING = {"app_id": "cli_a1", "app_secret": "hush"}


def problems(**flags: Any) -> list[str]:
    with pytest.raises(SettingsInvalid) as caught:
        BridgeSettings.load(**{**WORKING, **flags})
    assert caught.value.exit_code == EXIT_SETTINGS
    return caught.value.problems


def problem(**flags: Any) -> str:
    (only,) = problems(**flags)
    return only


def test_app_id_and_secret_are_all_a_bridge_needs() -> None:
    settings = BridgeSettings.load(**WORKING)

    assert settings.app_id == "cli_a1"
    assert settings.app_secret.get_secret_value() == "hush"
    assert settings.base_url == "https://open.feishu.cn"
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert settings.group == "workers"
    assert settings.handlers == ()
    assert (settings.lease_duration, settings.renew_deadline, settings.retry_period) == (15, 10, 2)
    assert (settings.event_lease, settings.ops_port) == (30, 0)


def test_a_worker_needs_no_secret() -> None:
    assert WorkerSettings.load(app_id="cli_a1").app_id == "cli_a1"


def test_an_option_that_there_is_not_is_a_mistake_in_code_as_well() -> None:
    assert problems(reconect_delay=3) == [
        "reconect_delay is no option; did you mean reconnect_delay?"
    ]


def test_flag_beats_environment_beats_env_file_beats_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def group(**flags: Any) -> str:
        return WorkerSettings.load(app_id="cli_a1", **flags).group

    assert group() == "workers"
    Path(".env").write_text("FLYBRIDGE_GROUP=from-file\n")
    assert group() == "from-file"
    monkeypatch.setenv("FLYBRIDGE_GROUP", "from-environment")
    assert group() == "from-environment"
    assert group(group="from-flag") == "from-flag"
    assert group(group=None) == "from-environment"


def test_an_env_file_of_ones_own_replaces_the_one_in_the_working_directory(tmp_path: Path) -> None:
    Path(".env").write_text("FLYBRIDGE_APP_ID=cli_wrong\n")
    (tmp_path / "production.env").write_text("FLYBRIDGE_APP_ID=cli_right\n")

    assert WorkerSettings.load(env_file=tmp_path / "production.env").app_id == "cli_right"


def test_an_env_file_that_is_not_there_is_named() -> None:
    assert "missing.env" in problem(env_file=Path("missing.env"))


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBRIDGE_GROUP", "")

    assert WorkerSettings.load(app_id="cli_a1").group == "workers"


@pytest.mark.parametrize("given", ["now", "ALL", "auto", "2h", "2026-07-29T10:00:00Z"])
def test_a_new_group_may_begin_at_any_moment(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("FLYBRIDGE_START_FROM", given)

    start_from = WorkerSettings.load(app_id="cli_a1").start_from
    assert start_from == (given.lower() if given.isalpha() else given)


def test_all_problems_are_reported_at_once_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBRIDGE_REDIS_URL", "http://redis")
    monkeypatch.setenv("FLYBRIDGE_OPS_PORT", "http")
    monkeypatch.setenv("FLYBRIDGE_LEASE_DURATION", "5")

    with pytest.raises(SettingsInvalid) as caught:
        BridgeSettings.load()

    named = [sentence.split()[0] for sentence in caught.value.problems]
    assert sorted(named) == [
        "FLYBRIDGE_APP_ID",
        "FLYBRIDGE_APP_SECRET",
        "FLYBRIDGE_LEASE_DURATION",
        "FLYBRIDGE_OPS_PORT",
        "FLYBRIDGE_REDIS_URL",
    ]
    assert all(
        "; give " in sentence or "; raise " in sentence for sentence in caught.value.problems
    )


def test_what_is_missing_is_said_with_where_to_find_it() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        WorkerSettings.load()

    assert caught.value.problems == [
        "FLYBRIDGE_APP_ID is not set; give the App ID that the Feishu developer console shows "
        "under Credentials, like cli_a1b2c3d4e5f6."
    ]


@pytest.mark.parametrize(
    "flags",
    [
        {"app_id": "cli a1"},
        {"app_id": "{cli}"},
        {"app_id": "x" * 65},
        {"group": "a:b"},
        {"group": ""},
        {"start_from": "tomorrow"},
        {"start_from": "2026-07-29T10:00:00"},
        {"event_lease": 0.5},
        {"event_lease": "nan"},
        {"retention": 1e16},
        {"log_level": "loud"},
        {"log_format": "xml"},
        {"ops_port": -1},
        {"ops_port": 65536},
        {"ops_host": ""},
        {"handlers": "my-app"},
        {"handlers": "folder/module"},
        {"lease_duration": "soon"},
        {"retry_period": 0},
        {"renew_deadline": "inf"},
    ],
)
def test_a_value_that_cannot_be_used_is_shown_with_its_variable(flags: dict[str, Any]) -> None:
    ((name, value),) = flags.items()

    assert problem(**flags).startswith(f"FLYBRIDGE_{name.upper()} is {value!r}; give ")


def test_the_group_of_the_bridges_own_dead_letters_is_reserved() -> None:
    assert "its own dead letters" in problem(group="bridge")


def test_handlers_are_modules_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBRIDGE_HANDLERS", "myapp.feishu, myapp.audit,")

    assert WorkerSettings.load(app_id="cli_a1").handlers == ("myapp.feishu", "myapp.audit")


# Redis


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis",
        "redis://user:p%40ss@redis.internal:6380/3",
        "rediss://[::1]:6379",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://:p%40ss@h1:26379,h2:26379/mymaster/0?sentinel_password=x",
        "rediss+cluster://h1,h2:7001",
    ],
)
def test_a_redis_url_may_be_tcp_tls_unix_sentinel_or_cluster(url: str) -> None:
    assert WorkerSettings.load(app_id="cli_a1", redis_url=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "redis.internal:6379",
        "redis://",
        "http://h",
        "redis://h:port",
        "redis://h:99999",
        "redis://h/db",
        "redis://[::1",
        "redis+sentinel://h",
        "redis+cluster://h/1",
        "unix://",
    ],
)
def test_another_redis_url_is_refused_without_printing_it(url: str) -> None:
    found = problem(redis_url=url)

    assert found.startswith("FLYBRIDGE_REDIS_URL cannot be used; give a URL like redis://")


def test_celery_may_have_a_redis_of_its_own_but_no_cluster() -> None:
    for url in ("redis+sentinel://h/m", "memory://"):
        assert WorkerSettings.load(app_id="cli_a1", broker_url=url).broker_url == url
    for url in ("redis+cluster://h", "amqp://h", "nonsense"):
        assert problem(broker_url=url).startswith("FLYBRIDGE_BROKER_URL cannot be used; give the ")


def test_an_option_of_a_url_that_cannot_be_used_is_told_without_printing_it() -> None:
    for name in ("redis_url", "broker_url"):
        found = problem(**{name: "redis://h?ssl_ca_certs=/hush.pem"})
        assert found.startswith(f"FLYBRIDGE_{name.upper()} has the option ssl_ca_certs, which is ")
        assert "hush" not in found


def test_a_file_that_a_url_names_has_to_be_readable(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    found = problem(redis_url=f"rediss://h?ssl_ca_certs={file}")
    assert found.startswith("FLYBRIDGE_REDIS_URL names a file in ssl_ca_certs that cannot be read")
    file.write_text("no certificate")
    found = problem(redis_url=f"rediss://h?ssl_ca_certs={file}")
    assert found.startswith("FLYBRIDGE_REDIS_URL has ssl_ options that cannot be used ([X509")
    assert "ciphers" in problem(redis_url="rediss://h?ssl_ciphers=nonsense")


def test_the_certificate_that_a_url_names_may_be_given() -> None:
    file = certifi.where()
    url = f"rediss://h?ssl_ca_certs={file}&ssl_min_version=TLSv1.3&ssl_cert_reqs=optional"
    assert WorkerSettings.load(app_id="cli_a1", redis_url=url).redis_url == url


def test_a_bridge_in_a_cluster_needs_no_broker() -> None:
    assert BridgeSettings.load(**WORKING, redis_url="redis+cluster://h").broker_url == ""


def test_the_secrets_of_both_urls_are_known() -> None:
    secrets = WorkerSettings.load(
        app_id="cli_a1",
        redis_url="redis+sentinel://u:one%40@h1,h2/m?sentinel_password=two",
        broker_url="unix:///run/redis.sock?password=three",
    ).secrets

    assert {"one@", "two", "three"} <= set(secrets)


# The secret


def test_the_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    monkeypatch.setenv("FLYBRIDGE_APP_SECRET_FILE", str(tmp_path / "secret"))

    settings = BridgeSettings.load(app_id="cli_a1")

    assert settings.app_secret.get_secret_value() == "from-file"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbf\n", "is empty; write the App Secret into it."),
        (b"FLYBRIDGE_APP_ID=x\nhush\n", "holds more than a secret; write the App Secret alone"),
        ("hush\n".encode("utf-16"), "is UTF-16, not UTF-8; save it as UTF-8"),
        (b"hush\0", "has a NUL byte in line 1"),
    ],
)
def test_a_secret_file_that_holds_no_secret_is_told(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(content)
    found = problem(app_secret=None, app_secret_file=tmp_path / "secret")
    assert found.startswith(f"FLYBRIDGE_APP_SECRET_FILE {tmp_path}/secret {said}")
    assert "hush" not in found


def test_secret_and_secret_file_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")

    assert "both set" in problem(app_secret_file=tmp_path / "secret")


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\xff\xfe"])
def test_a_secret_file_without_a_secret_is_named(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    found = problem(app_secret=None, app_secret_file=file)

    assert found.startswith("FLYBRIDGE_APP_SECRET")


def test_no_secret_shows_in_a_repr() -> None:
    settings = BridgeSettings.load(
        app_id="cli_a1",
        app_secret="hush-1",
        redis_url="redis://:hush-2@h",
        broker_url="redis+sentinel://:hush-3@h/m?sentinel_password=hush-4",
    )

    assert "hush" not in repr(settings)
    assert "hush" not in str(settings)


# The text dialect


@pytest.mark.parametrize("useless", [{"text_token": "t-1"}, {"text_event_url": "http://h/e"}])
def test_a_token_for_a_dialect_that_is_off_is_a_contradiction(useless: dict[str, str]) -> None:
    assert "FLYBRIDGE_TEXT_DIALECT is off" in problem(**useless)
    assert BridgeSettings.load(**WORKING, text_dialect=True, **useless).text_dialect


def test_the_token_of_the_text_dialect_is_a_secret() -> None:
    settings = BridgeSettings.load(**WORKING, text_dialect=True, text_token="hush")
    assert "hush" in settings.secrets
    assert "hush" not in repr(settings)


# The domain


@pytest.mark.parametrize(
    ("domain", "base_url"),
    [
        ("feishu", "https://open.feishu.cn"),
        ("Lark", "https://open.larksuite.com"),
        ("https://feishu.example.com:8443/", "https://feishu.example.com:8443"),
        ("http://127.0.0.1:8719", "http://127.0.0.1:8719"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8719", "http://[::1]:8719"),
        ("http://localhost:8719", "http://localhost:8719"),
    ],
)
def test_the_domain_is_a_name_or_a_base_url(domain: str, base_url: str) -> None:
    assert BridgeSettings.load(**WORKING, domain=domain).base_url == base_url


@pytest.mark.parametrize(
    "domain",
    [
        "http://10.0.0.1",
        "http://feishu.example.com",
        "http://localhost.evil.com",
        "http://[fe80::1]",
    ],
)
def test_plain_http_leaves_this_machine_never(domain: str) -> None:
    assert "plain http would send the app secret readably" in problem(domain=domain)


@pytest.mark.parametrize(
    "domain",
    ["feishoo", "open.feishu.cn", "ws://127.0.0.1", "https://", "https://h:port", "https://[::1"],
)
def test_another_domain_is_refused(domain: str) -> None:
    assert problem(domain=domain).startswith(f"FLYBRIDGE_DOMAIN is {domain!r}; give feishu, lark")


@pytest.mark.parametrize("domain", ["https://u:hush@h", "https://h?a=hush", "u:hush@h:port#"])
def test_a_domain_that_may_hold_a_secret_is_not_repeated(domain: str) -> None:
    told = problem(domain=domain)
    assert told.startswith("FLYBRIDGE_DOMAIN holds more than scheme, host and path; give")
    assert "hush" not in told


# Durations


def test_durations_that_contradict_each_other_are_explained() -> None:
    found = problems(lease_duration=10, renew_deadline=10, retry_period=9)

    assert [sentence.split()[0] for sentence in found] == [
        "FLYBRIDGE_LEASE_DURATION",
        "FLYBRIDGE_RENEW_DEADLINE",
    ]


def test_durations_may_be_fractions() -> None:
    settings = BridgeSettings.load(
        **WORKING, lease_duration=1.5, renew_deadline="1.0", retry_period=0.25
    )

    assert (settings.lease_duration, settings.renew_deadline) == (1.5, 1.0)
