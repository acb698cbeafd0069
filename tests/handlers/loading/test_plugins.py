from __future__ import annotations

import os
import re
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import structlog

import flybridge
from flybridge.handlers.errors import PluginBroken
from flybridge.handlers.loading import plugins
from flybridge.handlers.loading.import_errors import reason
from flybridge.handlers.loading.plugins import load, load_late
from flybridge.handlers.registry import registry

pytestmark = pytest.mark.usefixtures("clean_registry")

HANDLER = """
from flybridge.handlers import handles

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
        "from flybridge.handlers.registry import registry\n"
        "registry.set_default(lambda event, context: None)"
    )
    with structlog.testing.capture_logs() as lines:
        load(["plugin_default"])
    assert lines == []


NUL_ERROR = "ValueError" if sys.version_info < (3, 11, 4) else "SyntaxError"
PLACE = "handler module plugin_bad failed to import at {}/plugin_bad.py"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import plugin_missing_library", ":1: it needs 'plugin_missing_library', which is not "),
        ("import json.plugin_none", ":1: it needs 'json.plugin_none', and 'json' has no such "),
        ("from json import none", ":1: ImportError: cannot import name 'none' from 'json'"),
        ("x = 1\ndef broken(:", ":2: SyntaxError: invalid syntax; correct it and try again"),
        ("\nx = '\0'", f":2: {NUL_ERROR}: source code string cannot contain null bytes; correct"),
        ("\n1 / 0", ":2: ZeroDivisionError: division by zero; correct it and try again"),
        ("raise SystemExit('no')", ":1: SystemExit: no; a module that is imported must not end"),
        ("import sys\nsys.exit()", ":2: SystemExit; a module that is imported must not end"),
        (
            "import os\ndef url():\n    return os.environ['PLUGIN_URL']\nURL = url()",
            ":3: KeyError: 'PLUGIN_URL'; set this environment variable for the workers",
        ),
        ("{}['x']", ":1: KeyError: 'x'; correct it and try again"),
        ("import json\njson.loads('{')", ":2: json.decoder.JSONDecodeError: Expecting property"),
        (HANDLER.replace('_v1"', '_v1", timeout=0'), ":4: timeout=0; give seconds"),
        (HANDLER.replace("event, context", "event"), ":4: greet does not accept (event, context)"),
        (HANDLER + HANDLER, ":9: 'plugin_bad:greet' is the name of the handler at plugin_bad:4"),
        ("class Odd(Exception):\n    __str__ = None\nraise Odd()", ":3: plugin_bad.Odd: "),
    ],
)
def test_a_broken_module_is_named_with_line_cause_and_cure(
    folder: Path, code: str, said: str
) -> None:
    (folder / "plugin_bad.py").write_text(code)
    with pytest.raises(PluginBroken) as broken:
        load(["plugin_bad"])
    assert broken.value.module == "plugin_bad"
    assert str(broken.value).startswith(PLACE.format(folder) + said)
    assert broken.value.__suppress_context__


def test_the_line_is_where_the_users_code_failed_in_whichever_module(folder: Path) -> None:
    (folder / "plugin_bad.py").write_text("import plugin_inner\n")
    (folder / "plugin_inner.py").write_text("import plugin_bad\nfrom plugin_bad import X\n")
    with pytest.raises(PluginBroken, match="two modules import each other; move what") as broken:
        load(["plugin_bad"])
    assert broken.value.place == f"{folder}/plugin_inner.py:2"


def test_the_line_of_a_nul_byte_is_that_of_the_module_that_holds_it(folder: Path) -> None:
    package = folder / "plugin_nul"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\ny = '\0'")
    (package / "plugin_bad.py").write_text(HANDLER)
    with pytest.raises(PluginBroken, match="cannot contain null bytes") as broken:
        load(["plugin_nul.plugin_bad"])
    assert broken.value.place == f"{package}/__init__.py:2"


def test_a_file_under_two_names_would_run_its_handlers_twice(folder: Path) -> None:
    package = folder / "plugin_package"
    package.mkdir()
    (package / "plugin_twice.py").write_text(HANDLER)
    sys.path.insert(0, str(package))
    try:
        load(["plugin_package.plugin_twice"])
        with pytest.raises(PluginBroken, match=r"its file is imported as 'plugin_package\.pl"):
            load(["plugin_twice"])
    finally:
        sys.path.remove(str(package))
    assert [each.name for each in registry.list()] == ["plugin_package.plugin_twice:greet"]


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
    with pytest.raises(PluginBroken, match="the name of a file; give that of the module: my_h"):
        load(["my_handlers.py"], entry_points=False)


@pytest.mark.parametrize("name", ["flybridge", "flybridge.greet", "flybridge.handlers.mine"])
def test_a_module_that_flybridge_does_not_have_is_no_handlers_module(name: str) -> None:
    with pytest.raises(PluginBroken, match=f"has no handlers in '{name}'; give your own module"):
        load([name], entry_points=False)


@pytest.mark.parametrize("name", ["flybridge", "flybridge.greet"])
@pytest.mark.parametrize("file", ["flybridge.py", "flybridge/__init__.py", "flybridge/greet.py"])
def test_a_module_with_the_name_of_ours_is_refused_with_both_paths(
    folder: Path, name: str, file: str
) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(HANDLER)

    with pytest.raises(PluginBroken, match="rename yours") as broken:
        load([name], entry_points=False)

    ours, yours = re.findall(r"(/\S+)[,;]", str(broken.value))
    assert ours == str(Path(flybridge.__file__).parent)
    assert yours.startswith(f"{folder}/flybridge")


def test_a_module_may_have_the_name_of_a_package_below_flybridge(folder: Path) -> None:
    (folder / "bridge").mkdir()
    (folder / "bridge" / "__init__.py").write_text(HANDLER)
    load(["bridge"])
    assert [each.name for each in registry.list()] == ["bridge:greet"]
    del sys.modules["bridge"]


@pytest.mark.parametrize(
    ("module", "missing"),
    [("handlers.builtin", "handlers.builtin"), ("my_handlers", "bridge.builder")],
)
def test_an_old_import_name_is_answered_with_the_new_one(module: str, missing: str) -> None:
    error = ModuleNotFoundError(name="handlers" if module == missing else missing)
    assert reason(module, error).endswith(f"are below 'flybridge': write flybridge.{missing}")


def test_an_old_name_is_answered_with_the_new_one_beside_a_package_of_that_name(
    folder: Path,
) -> None:
    (folder / "handlers").mkdir()
    (folder / "handlers" / "__init__.py").touch()

    with pytest.raises(PluginBroken, match=r"write flybridge\.handlers\.builtin$"):
        load(["handlers.builtin"], entry_points=False)
    with pytest.raises(PluginBroken, match=r"no module 'handlers\.mine' on"):
        load(["handlers.mine"], entry_points=False)
    del sys.modules["handlers"]


def test_the_examples_are_ours_and_may_be_loaded() -> None:
    load(["flybridge.handlers.builtin", "flybridge.handlers.default"], entry_points=False)


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
    # As on a file system with coarse times: the folder seems not to have changed.
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
