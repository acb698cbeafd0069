"""The options of the C# service work here, in every spelling, and mean what they meant there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.config.dotnet_names import OPTIONS, meaning, translate
from flybridge.bridge.config.environment import unknown_variables
from flybridge.bridge.config.layers import Written
from flybridge.bridge.config.settings import BridgeSettings, WorkerSettings
from flybridge.bridge.errors import SettingsInvalid

pytestmark = pytest.mark.usefixtures("no_settings")

FIELDS = (*BridgeSettings.model_fields, "multi_handler")
SEED = {
    "AppId": "cli_a1",
    "AppSecret": "hush",
    "AutoReconnect": False,
    "MaxReconnectAttempts": 5,
    "ReconnectDelayMs": 5000,
    "HeartbeatIntervalMs": 15000,
    "ConnectionTimeoutMs": 2500,
    "ReceiveBufferSize": 4096,
    "EnableLogging": False,
    "EnableMessageQueue": False,
    "MessageQueueCapacity": 1000,
    "EnableMultiHandlerMode": True,
    "ParallelMultiHandlers": False,
}
OURS = {
    "app_id": "cli_a1",
    "app_secret": "hush",
    "auto_reconnect": False,
    "max_reconnect_attempts": 5,
    "reconnect_delay": 5.0,
    "ping_interval": 15.0,
    "connection_timeout": 2.5,
    "receive_buffer_size": 4096,
    "log_level": "off",
    "message_queue": False,
    "message_queue_capacity": 1000,
    "multi_handler": True,
    "parallel_handlers": False,
}
SNAKE = {
    "AppId": "app_id",
    "AppSecret": "app_secret",
    "AutoReconnect": "auto_reconnect",
    "MaxReconnectAttempts": "max_reconnect_attempts",
    "ReconnectDelayMs": "reconnect_delay_ms",
    "HeartbeatIntervalMs": "heartbeat_interval_ms",
    "ConnectionTimeoutMs": "connection_timeout_ms",
    "ReceiveBufferSize": "receive_buffer_size",
    "EnableLogging": "enable_logging",
    "EnableMessageQueue": "enable_message_queue",
    "MessageQueueCapacity": "message_queue_capacity",
    "EnableMultiHandlerMode": "enable_multi_handler_mode",
    "ParallelMultiHandlers": "parallel_multi_handlers",
}
BY_NAME = dict(zip(SEED, OURS, strict=True))


def written(**options: Any) -> list[Written]:
    return [Written(name, value, name) for name, value in options.items()]


def values(**options: Any) -> dict[str, Any]:
    layer = translate(written(**options), FIELDS)
    assert not layer.problems
    assert not layer.unknown
    return {setting: each.value for setting, each in layer.given.items()}


def configured(**options: Any) -> BridgeSettings:
    return BridgeSettings.load(
        configured=[written(**{"AppId": "cli_a1", "AppSecret": "hush", **options})]
    )


def problems(**options: Any) -> list[str]:
    with pytest.raises(SettingsInvalid) as caught:
        configured(**options)
    return caught.value.problems


# Names


def test_all_options_of_the_seed_are_in_the_table() -> None:
    assert [option.name for option in OPTIONS] == list(SEED)


def test_each_option_becomes_the_setting_of_ours_that_it_means() -> None:
    assert values(**SEED) == OURS


def test_the_same_in_snake_case_as_in_pascal_case() -> None:
    assert values(**{SNAKE[name]: value for name, value in SEED.items()}) == OURS


@pytest.mark.parametrize("name", SEED)
def test_the_environment_has_a_variable_for_each_option(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBRIDGE_APP_ID", "cli_a1")
    monkeypatch.setenv("FLYBRIDGE_APP_SECRET", "hush")
    monkeypatch.setenv(f"FLYBRIDGE_{SNAKE[name].upper()}", str(SEED[name]).lower())

    made = BridgeSettings.load().model_dump()
    setting = BY_NAME[name]
    if setting in ("app_secret", "multi_handler"):  # a secret; and of services only
        return
    assert made[setting] == OURS[setting]
    assert not unknown_variables(BridgeSettings.model_fields)


def test_env_file_works_like_the_environment_and_lies_below_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("FLYBRIDGE_RECONNECT_DELAY_MS=3000\nFLYBRIDGE_APP_ID=cli_a1\n")
    assert BridgeSettings.load(app_secret="hush").reconnect_delay == 3
    monkeypatch.setenv("FLYBRIDGE_RECONNECT_DELAY", "4")
    assert BridgeSettings.load(app_secret="hush").reconnect_delay == 4
    assert BridgeSettings.load(app_secret="hush", reconnect_delay=5).reconnect_delay == 5


@given(st.sampled_from(list(SEED)), st.lists(st.booleans(), min_size=30, max_size=30))
def test_case_and_underscores_make_no_other_name(name: str, upper: list[bool]) -> None:
    odd = "".join(
        letter.upper() if up else letter.lower()
        for letter, up in zip(SNAKE[name], upper, strict=False)
    )
    assert meaning(odd, FIELDS)[0] == meaning(name, FIELDS)[0] == BY_NAME[name]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ReconectDelayMs", "ReconnectDelayMs"),
        ("reconect_delay_ms", "reconnect_delay_ms"),
        ("HeartbeatInterval", "HeartbeatIntervalMs"),
        ("redis_uri", "redis_url"),
    ],
)
def test_an_unknown_name_is_a_sentence_with_the_nearest_known_one(name: str, near: str) -> None:
    assert problems(**{name: 1}) == [f"{name} is no option; did you mean {near}?"]


def test_a_name_like_no_other_is_to_be_left_out() -> None:
    assert problems(Zzzzzzzz=1) == ["Zzzzzzzz is no option; leave it out."]


def test_a_mistyped_variable_is_told_with_the_nearest_option() -> None:
    found = unknown_variables(FIELDS, {"FLYBRIDGE_HEARTBEAT_INTERVALL_MS": "1"})
    assert found == {"FLYBRIDGE_HEARTBEAT_INTERVALL_MS": "FLYBRIDGE_HEARTBEAT_INTERVAL_MS"}


# Values


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_milliseconds_are_seconds_here(milliseconds: float) -> None:
    for given_as in (milliseconds, repr(milliseconds)):
        found = values(ReconnectDelayMs=given_as)["reconnect_delay"]
        assert math.isclose(found * 1000, milliseconds)


@pytest.mark.parametrize("word", [True, "true", "True", "yes", "on", 1, "1"])
def test_words_for_true_are_true(word: object) -> None:
    assert configured(AutoReconnect=word).auto_reconnect is True


@pytest.mark.parametrize("word", [False, "false", "No", "off", 0, "0"])
def test_words_for_false_are_false(word: object) -> None:
    assert configured(EnableMessageQueue=word).message_queue is False
    assert configured(EnableLogging=word).log_level == "off"


def test_an_option_without_a_value_counts_as_not_written() -> None:
    assert configured(ReconnectDelayMs=None).reconnect_delay == 1


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("ReconnectDelayMs", "soon", "give milliseconds, more than 0"),
        ("ReconnectDelayMs", 0, "give milliseconds, more than 0"),
        ("ReconnectDelayMs", True, "give milliseconds, more than 0"),
        ("ReconnectDelayMs", 120_001, "give milliseconds, more than 0 and up to 120000"),
        ("reconnect_delay", 121, "give seconds, more than 0 and up to 120"),
        ("ConnectionTimeoutMs", -1, "give milliseconds, more than 0"),
        ("ConnectionTimeoutMs", "nan", "give milliseconds, more than 0"),
        ("HeartbeatIntervalMs", 999, "give milliseconds, 1000 or more"),
        ("HeartbeatIntervalMs", "inf", "give milliseconds, 1000 or more"),
        ("AutoReconnect", "maybe", "give true to connect anew"),
        ("MaxReconnectAttempts", True, "give the attempts in a row"),
        ("connection_timeout", True, "give seconds greater than 0"),
        ("MaxReconnectAttempts", -1, "give the attempts in a row"),
        ("ReceiveBufferSize", -1, "give bytes, or 0"),
        ("ReceiveBufferSize", 2**31, "give bytes, or 0"),
        ("MessageQueueCapacity", "many", "give how many events may wait"),
        ("EnableLogging", "loudly", "give true or false"),
        ("EnableMessageQueue", 3, "give true to let events wait"),
        ("ParallelMultiHandlers", "x", "give true to run"),
    ],
)
def test_a_wrong_value_is_told_in_the_words_that_were_written(
    name: str, value: object, advice: str
) -> None:
    (sentence,) = problems(**{name: value})
    assert sentence.startswith(f"{name} is {value!r}; {advice}")


def test_a_variable_is_told_under_the_name_that_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLYBRIDGE_HEARTBEAT_INTERVAL_MS", "often")
    with pytest.raises(SettingsInvalid) as caught:
        BridgeSettings.load(app_id="cli_a1", app_secret="hush")
    assert caught.value.problems == [
        "FLYBRIDGE_HEARTBEAT_INTERVAL_MS is 'often'; give milliseconds, 1000 or more."
    ]


def test_whole_sentences_name_what_was_written_too() -> None:
    (sentence,) = problems(Domain="http://10.0.0.1")
    assert sentence.startswith("Domain is 'http://10.0.0.1', and plain http")


def test_a_secret_is_in_no_sentence() -> None:
    for wrong in ({"AppSecret": 4711_0815}, {"AppSecret": {"x": "4711_0815"}}):
        (sentence,) = problems(**wrong)
        assert sentence.startswith("AppSecret is not text")
        assert "4711" not in sentence
    (sentence,) = problems(AppId={"AppSecret": "hush"})
    assert "hush" not in sentence


# Two names of one thing


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"ReconnectDelayMs": 3000}, {"reconnect_delay": 5}),
        ({"AutoReconnect": True}, {"auto_reconnect": "no"}),
        ({"AppId": "cli_1"}, {"app_id": "cli_2"}),
        ({"EnableLogging": False}, {"log_level": "debug"}),
        ({"EnableLogging": True}, {"log_level": "off"}),
        ({"log_level": "off"}, {"EnableLogging": True}),
    ],
)
def test_two_names_of_one_thing_that_differ_are_a_contradiction(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    (told,) = translate(written(**one, **other), FIELDS).problems
    assert told == f"{next(iter(one))} and {next(iter(other))} mean the same and differ; " + (
        "keep one of them."
    )


@pytest.mark.parametrize(
    "both",
    [
        {"ReconnectDelayMs": 3000, "reconnect_delay": "3"},
        {"AutoReconnect": "true", "auto_reconnect": True},
        {"EnableLogging": True, "log_level": "debug"},
        {"log_level": "debug", "EnableLogging": True},
        {"EnableLogging": "no", "log_level": "OFF"},
    ],
)
def test_two_names_that_agree_are_none(both: dict[str, Any]) -> None:
    assert not translate(written(**both), FIELDS).problems
    assert configured(**both).log_level in ("info", "debug", "off")


def test_in_the_environment_a_contradiction_names_both_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLYBRIDGE_RECONNECT_DELAY_MS", "3000")
    monkeypatch.setenv("FLYBRIDGE_RECONNECT_DELAY", "5")
    with pytest.raises(SettingsInvalid, match="mean the same and differ") as caught:
        BridgeSettings.load(app_id="cli_a1", app_secret="hush")
    (sentence,) = caught.value.problems
    assert "FLYBRIDGE_RECONNECT_DELAY_MS" in sentence
    assert "FLYBRIDGE_RECONNECT_DELAY " in sentence


# Sources over each other


def loaded(*layers: dict[str, Any]) -> BridgeSettings:
    return BridgeSettings.load(
        app_id="cli_a1", configured=[written(app_secret="hush"), *(written(**x) for x in layers)]
    )


def test_what_is_configured_later_wins() -> None:
    assert loaded({"ReconnectDelayMs": 3000}, {"reconnect_delay": 5}).reconnect_delay == 5
    assert loaded({"reconnect_delay": 5}, {"ReconnectDelayMs": 3000}).reconnect_delay == 3


def test_logging_switched_on_later_keeps_the_level_but_not_off() -> None:
    assert loaded({"EnableLogging": False}, {"EnableLogging": True}).log_level == "info"
    assert loaded({"log_level": "debug"}, {"EnableLogging": True}).log_level == "debug"
    assert loaded({"EnableLogging": False}, {"log_level": "debug"}).log_level == "debug"
    assert loaded({"log_level": "debug"}, {"EnableLogging": False}).log_level == "off"


def test_a_secret_takes_the_place_of_an_earlier_secret_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("from-file")
    monkeypatch.setenv("FLYBRIDGE_APP_SECRET_FILE", str(tmp_path / "secret"))
    assert loaded().app_secret.get_secret_value() == "hush"
    assert loaded({"app_secret_file": tmp_path / "secret"}).app_secret.get_secret_value() == (
        "from-file"
    )


def test_a_worker_does_not_mind_what_only_bridges_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBRIDGE_HEARTBEAT_INTERVAL_MS", "30000")
    monkeypatch.setenv("FLYBRIDGE_PARALLEL_MULTI_HANDLERS", "false")
    settings = WorkerSettings.load(app_id="cli_a1")
    assert settings.parallel_handlers is False
    assert not settings.unwise


# Values that serve nobody well


@pytest.mark.parametrize(
    ("name", "value", "used"),
    [
        ("HeartbeatIntervalMs", 30000, "ping_interval=24.0"),
        ("MaxReconnectAttempts", 5, "max_reconnect_attempts=5"),
        ("AutoReconnect", "false", "auto_reconnect=false"),
        ("ReceiveBufferSize", 4096, "receive_buffer_size=4096"),
        ("EnableMessageQueue", False, "message_queue=False"),
    ],
)
def test_what_is_unwise_here_is_told_with_what_is_used(name: str, value: Any, used: str) -> None:
    (found,) = configured(**{name: value}).unwise
    assert (found.name, found.given, found.used) == (name, value, used)
    assert found.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HeartbeatIntervalMs", 24000),
        ("MaxReconnectAttempts", 0),
        ("AutoReconnect", True),
        ("ReceiveBufferSize", 262144),
        ("ReceiveBufferSize", 0),
        ("EnableMessageQueue", True),
        ("MessageQueueCapacity", 10),
        ("EnableLogging", False),
    ],
)
def test_what_is_not_is_not(name: str, value: Any) -> None:
    assert not configured(**{name: value}).unwise


def test_what_a_later_source_put_right_is_not_told() -> None:
    assert not loaded({"MaxReconnectAttempts": 5}, {"max_reconnect_attempts": 0}).unwise


def test_our_own_name_for_the_heartbeat_is_not_cut_but_refused() -> None:
    assert configured(HeartbeatIntervalMs=30000).ping_interval == 24
    (sentence,) = problems(ping_interval=30)
    assert sentence.startswith("ping_interval is 30; give seconds, 1 to 24")
