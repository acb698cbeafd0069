from __future__ import annotations

import os
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import structlog

from handlers import plugins
from handlers.errors import PluginBroken
from handlers.plugins import load, load_late
from handlers.registry import registry

pytestmark = pytest.mark.usefixtures("clean_registry")

HANDLER = """
from handlers import handles

@handles("im.message.receive_v1")
def greet(event, context): ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "installed_entry_points", lambda group: EntryPoints())
    return tmp_path


def test_modules_register_what_they_decorate(folder: Path) -> None:
    (folder / "plugin_good.py").write_text(HANDLER)
    with structlog.testing.capture_logs() as lines:
        load(["plugin_good"])
        load(["plugin_good"])
    assert [each.name for each in registry.list()] == ["plugin_good:greet"]
    assert lines == []


def test_a_module_that_registers_nothing_is_pointed_out(folder: Path) -> None:
    (folder / "plugin_empty.py").write_text("")
    with structlog.testing.capture_logs() as lines:
        load(["plugin_empty"])
    assert [(line["event"], line["module"]) for line in lines] == [
        ("plugin.registered_nothing", "plugin_empty")
    ]


def test_a_module_that_only_sets_the_default_registers_something(folder: Path) -> None:
    (folder / "plugin_default.py").write_text(
        "from handlers.registry import registry\nregistry.set_default(lambda event, context: None)"
    )
    with structlog.testing.capture_logs() as lines:
        load(["plugin_default"])
    assert lines == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import plugin_missing_library", "it needs 'plugin_missing_library'"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(at .*plugin_bad.py:1\)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (HANDLER.replace('_v1"', '_v1", timeout=0'), "timeout=0; give seconds"),
    ],
)
def test_a_broken_module_is_named_with_cause_and_cure(folder: Path, code: str, said: str) -> None:
    (folder / "plugin_bad.py").write_text(code)
    with pytest.raises(
        PluginBroken, match="handler module plugin_bad failed to import: "
    ) as broken:
        load(["plugin_bad"])
    assert broken.value.module == "plugin_bad"
    assert broken.match(said)


@pytest.mark.parametrize("module", ["plugin_nowhere", "plugin_nowhere.feishu"])
def test_a_module_that_is_not_found_is_told_from_one_that_needs_another(
    folder: Path, module: str
) -> None:
    with pytest.raises(PluginBroken, match="no module 'plugin_nowhere' on the path"):
        load([module])


@pytest.mark.parametrize("name", ["plugin/feishu.py", "plugin:greet", ".feishu", "", "a b"])
def test_what_is_no_module_name_is_refused(name: str) -> None:
    with pytest.raises(PluginBroken, match="write it with dots"):
        load([name], entry_points=False)


def test_a_file_is_told_to_be_named_as_a_module() -> None:
    with pytest.raises(PluginBroken, match="a file's name; give the module: my_handlers"):
        load(["my_handlers.py"], entry_points=False)


@pytest.mark.parametrize("name", ["handlers", "handlers.greet", "workers.mine", "bridge"])
def test_a_module_named_as_one_of_ours_is_to_be_renamed(name: str) -> None:
    with pytest.raises(PluginBroken, match="is a name of Flybridge's, whose package"):
        load([name], entry_points=False)


def test_the_examples_are_ours_and_may_be_loaded() -> None:
    load(["handlers.builtin", "handlers.default"], entry_points=False)


def test_entry_points_are_loaded_unless_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "plugin_installed.py").write_text(HANDLER)
    found = EntryPoints([EntryPoint("mine", "plugin_installed:greet", plugins.GROUP)])
    monkeypatch.setattr(plugins, "installed_entry_points", lambda group: found)
    load([], entry_points=False)
    assert registry.list() == ()
    load([])
    assert [each.name for each in registry.list()] == ["plugin_installed:greet"]


def test_a_broken_entry_point_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = EntryPoints([EntryPoint("mine", "plugin_gone", plugins.GROUP)])
    monkeypatch.setattr(plugins, "installed_entry_points", lambda group: found)
    with pytest.raises(PluginBroken, match="handler module plugin_gone failed"):
        load([])


def test_a_module_loaded_late_brings_its_handlers_once(folder: Path) -> None:
    (folder / "plugin_late.py").write_text(HANDLER)
    assert [each.name for each in load_late("plugin_late")] == ["plugin_late:greet"]
    assert load_late("plugin_late") == ()
    registry.unregister("plugin_late:greet")
    assert [each.name for each in load_late("plugin_late")] == ["plugin_late:greet"]


def test_a_file_that_is_new_in_its_folder_is_found(folder: Path) -> None:
    with pytest.raises(PluginBroken, match="no module"):
        load_late("plugin_new")
    read = folder.stat()
    (folder / "plugin_new.py").write_text(HANDLER)
    # As on a file system that tells the time roughly: nothing seems to have changed.
    os.utime(folder, ns=(read.st_atime_ns, read.st_mtime_ns))
    assert len(load_late("plugin_new")) == 1


def test_a_module_that_fails_late_registers_nothing_until_it_is_mended(folder: Path) -> None:
    (folder / "plugin_part.py").write_text(HANDLER)
    (folder / "plugin_late.py").write_text("import plugin_part\n1 / 0\n")
    with pytest.raises(PluginBroken, match="ZeroDivisionError"):
        load_late("plugin_late")
    assert registry.list() == ()
    (folder / "plugin_late.py").write_text("import plugin_part\n")
    assert [each.name for each in load_late("plugin_late")] == ["plugin_part:greet"]
