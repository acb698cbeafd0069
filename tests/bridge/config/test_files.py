"""Settings from files: found where they are said to be; a mistake is a sentence with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flybridge.bridge.config.files import read
from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.errors import SettingsInvalid

pytestmark = pytest.mark.usefixtures("no_settings")

SEED = """\
{
  "Feishu": {
    "AppId": "your_app_id",
    "AppSecret": "your_app_secret",
    "WebSocket": {
      "AutoReconnect": true,
      "MaxReconnectAttempts": 5,
      "ReconnectDelayMs": 5000,
      "HeartbeatIntervalMs": 30000,
      "EnableLogging": true
    }
  }
}
"""
"""As it stands in the document of the C# service."""

DEEP: dict[str, Any] = {
    "AppId": "cli_top",
    "Feishu": {"AppId": "cli_f", "AppSecret": "hush-f", "WebSocket": {"ReconnectDelayMs": 1000}},
    "Production": {
        "AppSecret": "hush-p",
        "WebSocket": {"HeartbeatIntervalMs": 15000},
    },
}


def options(source: object, section: str = "Feishu") -> dict[str, Any]:
    return {each.name: each.value for each in read(source, section)}


def problem(source: object, section: Any = "Feishu") -> str:
    with pytest.raises(SettingsInvalid) as caught:
        read(source, section)
    (only,) = caught.value.problems
    return only


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


File = Callable[[str, str], Path]


def test_the_file_of_the_seed_works_as_it_is(file: File) -> None:
    settings = BridgeSettings.load(configured=[read(file("appsettings.json", SEED))])

    assert settings.app_id == "your_app_id"
    assert settings.app_secret.get_secret_value() == "your_app_secret"
    assert (settings.auto_reconnect, settings.max_reconnect_attempts) == (True, 5)
    assert (settings.reconnect_delay, settings.ping_interval) == (5, 24)
    assert settings.log_level == "info"


def test_toml_json_and_yaml_say_the_same(file: File) -> None:
    toml = '[Feishu]\nAppId = "cli_a1"\n[Feishu.WebSocket]\nReconnectDelayMs = 3000\n'
    said = {"AppId": "cli_a1", "ReconnectDelayMs": 3000}

    assert options(file("a.toml", toml)) == said
    tree = {"Feishu": {"AppId": "cli_a1", "WebSocket": {"ReconnectDelayMs": 3000}}}
    assert options(file("a.json", json.dumps(tree))) == said
    for name in ("a.yaml", "a.yml", "A.YAML"):
        assert options(file(name, yaml.safe_dump(tree))) == said
    assert options(str(file("b.json", json.dumps(tree)))) == said
    assert options(tree) == said


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Za-z]{0,20}", fullmatch=True), st.integers()))
def test_what_stands_in_a_section_comes_back_from_every_kind_of_file(
    tmp_path_factory: pytest.TempPathFactory, section: dict[str, int]
) -> None:
    section = {name: value for name, value in section.items() if name.lower() != "websocket"}
    folder = tmp_path_factory.mktemp("files")
    (folder / "a.json").write_text(json.dumps({"F": section}))
    (folder / "a.yaml").write_text(yaml.safe_dump({"F": section}))
    toml = "".join(f"{name} = {value}\n" for name, value in section.items() if abs(value) < 2**63)
    (folder / "a.toml").write_text(f"[F]\n{toml}")

    assert options(folder / "a.json", "F") == options(folder / "a.yaml", "F") == section
    small = {name: value for name, value in section.items() if abs(value) < 2**63}
    assert options(folder / "a.toml", "F") == small


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(SEED, encoding="utf-8-sig")
    assert options(tmp_path / "a.json")["AppId"] == "your_app_id"


# Sections


def test_a_section_is_named_with_colons_and_takes_app_id_and_secret_from_those_around() -> None:
    assert options(DEEP, "Production:WebSocket") == {
        "HeartbeatIntervalMs": 15000,
        "AppId": "cli_top",
        "AppSecret": "hush-p",
    }


def test_the_nearest_section_around_comes_first() -> None:
    assert options(DEEP, "Feishu:WebSocket") == {
        "ReconnectDelayMs": 1000,
        "AppId": "cli_f",
        "AppSecret": "hush-f",
    }


def test_a_section_that_has_its_own_takes_nothing_from_around() -> None:
    assert options(DEEP)["AppId"] == "cli_f"
    around = {"AppSecret": "hush", "Feishu": {"AppSecretFile": "/run/secret"}}
    assert options(around) == {"AppSecretFile": "/run/secret"}


def test_only_app_id_and_secret_are_taken_from_around() -> None:
    assert options({"ReconnectDelayMs": 1, "Logging": {}, "Feishu": {"AppId": "cli_a1"}}) == {
        "AppId": "cli_a1"
    }


def test_sections_are_found_whatever_their_case() -> None:
    assert options({"feishu": {"AppId": "a", "websocket": {"autoReconnect": True}}}) == {
        "AppId": "a",
        "autoReconnect": True,
    }


def test_the_empty_section_is_the_whole_file() -> None:
    assert options({"AppId": "cli_a1"}, "") == {"AppId": "cli_a1"}


# Mistakes


def test_a_wrong_value_is_told_with_file_and_section(file: File) -> None:
    path = file("a.yaml", "Feishu:\n  AppId: cli_a1\n  WebSocket: {ReconnectDelayMs: soon}\n")
    with pytest.raises(SettingsInvalid) as caught:
        BridgeSettings.load(configured=[read(path)], app_secret="hush")
    assert caught.value.problems == [
        f"{path}: Feishu:WebSocket:ReconnectDelayMs is 'soon'; give milliseconds, "
        "more than 0 and up to 120000."
    ]


def test_a_contradiction_between_section_and_websocket_is_one(file: File) -> None:
    tree = {"Feishu": {"AutoReconnect": True, "WebSocket": {"AutoReconnect": False}}}
    with pytest.raises(SettingsInvalid) as caught:
        BridgeSettings.load(configured=[read(tree)], app_id="cli_a1", app_secret="hush")
    assert caught.value.problems == [
        "Feishu:AutoReconnect and Feishu:WebSocket:AutoReconnect mean the same and differ; "
        "keep one of them."
    ]


@pytest.mark.parametrize("text", ['{"AppSecret": "hush"}', "Feishu:\n  AppSecret: hush"])
def test_the_text_of_a_file_in_place_of_its_path_is_not_repeated(text: str) -> None:
    told = problem(text)
    assert "give its path" in told
    assert "hush" not in told


def test_a_name_that_is_too_long_for_a_file() -> None:
    assert "cannot be read: File name too long" in problem(f"{'a' * 300}.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "missing.toml"
    assert problem(path) == f"{path} is not a file; give the path of one."
    (tmp_path / "folder.json").mkdir()
    assert "is a folder" in problem(tmp_path / "folder.json")


def test_a_file_of_another_kind(file: File) -> None:
    assert problem(file("a.ini", "")).endswith(
        "is of no known kind; give a file whose name ends with .toml, .json, .yaml, .yml."
    )


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.toml", 'AppSecret = "hush"\n= hush\n', "is no TOML: line 2, column 1; correct it."),
        ("a.toml", 'AppSecret = "hush', "is no TOML: end of document; correct it."),
        ("a.json", '{"AppSecret": "hush",\n hush}', "is no JSON: line 2, column 2; correct it."),
        ("a.json", "", "is no JSON: line 1, column 1; correct it."),
        ("a.yaml", "a: 1\nAppSecret: *hush\n", "is no YAML: line 2, column 12; correct it."),
        ("a.yaml", "AppSecret: !hush x\n", "is no YAML: line 1, column 12; correct it."),
        ("a.yaml", "a: [hush\n", "is no YAML: line 2, column 1; correct it."),
        ("a.yaml", "AppSecret: 2026-99-99\n", "is no YAML; correct it."),
        ("a.yaml", "a: \x07hush\n", "is no YAML; correct it."),
        ("a.json", "[" * 100_000, "is no JSON; correct it."),
        ("a.yaml", "[" * 10_000, "is no YAML; correct it."),
    ],
)
def test_a_file_that_cannot_be_parsed_is_told_with_the_line_but_not_with_what_stands_there(
    file: File, name: str, text: str, told: str
) -> None:
    found = problem(file(name, text))
    assert found.endswith(f"{name} {told}")
    assert "hush" not in found


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    for content in (b"\n\xd6\xd0", b"\n\x80"):
        (tmp_path / "a.json").write_bytes(content)
        assert problem(tmp_path / "a.json").endswith(
            "is no text in UTF-8, see line 2; save it as UTF-8."
        )


def test_a_section_that_is_not_there_is_told_with_those_that_are(file: File) -> None:
    path = file("a.json", json.dumps({"Feishoo": {}, "Logging": {}, "AppSecret": "hush"}))
    top = "and section='' is the top of the file."
    assert problem(path) == f"{path} has no section 'Feishu'; there are Feishoo, Logging, {top}"
    assert problem(DEEP, "Production:Socket") == (
        f"Production has no section 'Socket'; there are WebSocket, {top}"
    )
    assert problem({"AppId": "hush"}) == f"There is no section 'Feishu'; there are none, {top}"


@pytest.mark.parametrize("text", ["", "- Feishu\n", "hush\n", "Feishu: hush\n", "Feishu: [hush]\n"])
def test_a_section_that_holds_no_options(file: File, text: str) -> None:
    found = problem(file("a.yaml", text))
    assert found.endswith("holds no names with values; give a section that does.")
    assert "hush" not in found


@pytest.mark.parametrize("source", [3, None, [("AppId", "a")], b"a.json"])
def test_a_source_that_is_neither_path_nor_mapping(source: object) -> None:
    assert problem(source).endswith(f"not from {type(source).__name__}; give one.")


@pytest.mark.parametrize("section", [3, None, ("a", "b")])
def test_a_section_that_is_no_text(section: object) -> None:
    assert problem({}, section).startswith(f"section={section!r} is no text; give names")


def test_no_value_is_in_the_repr_of_an_option() -> None:
    assert "hush" not in repr(read(DEEP))
