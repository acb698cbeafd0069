"""Every sample of the document that this project follows has its counterpart, which a test runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from flybridge.handlers.types import ALIASES
from tests.project import ROOT

EXAMPLES = ROOT / "deploy" / "examples"
TABLE = (EXAMPLES / "README.md").read_text(encoding="utf-8")

SAMPLES = (
    "方式一:建造者模式",
    "方式二:简化注册",
    "配置文件",
    "基本使用",
    "心跳事件订阅",
    "心跳数据模型",
    "心跳统计和分析",
    "内置事件处理器",
    "创建自定义事件处理器",
    "使用建造者模式注册",
    "依赖注入注册",
    "运行时动态注册",
    "WebSocket配置",
    "建造者模式配置",
    "简化配置",
    "灵活的配置组合",
    "条件性处理器注册",
    "服务注册最佳实践",
    "心跳监控服务",
    "事件处理器工厂",
    "手动连接控制",
    "分布式部署支持",
    "消息处理优化",
    "监控和告警",
    "IFeishuWebSocketManager",
    "IFeishuEventHandler",
)
"""The headings of its document under which code or a table of features stands, in its order."""

NAMES = """
AddFeishuWebSocketBuilder ConfigureFrom ConfigureOptions UseMultiHandler AddHandler Apply Build
WithSingleHandler WithMultiHandler RegisterHandler GetHandler IsHandlerRegistered
GetRegisteredEventTypes IFeishuEventHandler SupportedEventType HandleAsync CancellationToken
ReceiveMessageEventHandler UserCreated MessageRead UserAddedToGroup UserRemovedFromGroup
DefaultFeishu Client IsConnected Connected Disconnected MessageReceived Error HeartbeatReceived
StartAsync StopAsync SendMessageAsync ReconnectAsync ping pong heartbeat event auth AppId AppSecret
AutoReconnect MaxReconnectAttempts ReconnectDelayMs HeartbeatIntervalMs ConnectionTimeoutMs
ReceiveBufferSize EnableLogging EnableMessageQueue MessageQueueCapacity EnableMultiHandlerMode
ParallelMultiHandlers Production:WebSocket
"""
"""What its document calls things: methods, events, handlers, message types, options."""


def rows() -> dict[str, list[str]]:
    """First column -> the files named in the second."""
    lines = [line.split("|")[1:3] for line in TABLE.splitlines() if line.startswith("|")]
    return {sample.strip(): re.findall(r"\]\((.+?)\)", files) for sample, files in lines[2:]}


def programs() -> list[str]:
    return sorted(path.name for path in EXAMPLES.glob("*.py"))


def test_the_table_has_every_sample_in_the_order_of_the_document() -> None:
    assert tuple(sample for sample in rows() if not sample.startswith("*")) == SAMPLES


def test_every_row_names_files_that_exist_and_every_file_has_a_row() -> None:
    assert all(rows().values())
    named = {name for files in rows().values() for name in files}
    assert {name for name in named if not (EXAMPLES / name).is_file()} == set()
    assert set(programs()) <= named


def test_every_example_is_run_by_a_test() -> None:
    tests = "".join(
        path.read_text()
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
    )
    assert [name for name in programs() if f'"{name.removesuffix(".py")}"' not in tests] == []


@pytest.mark.parametrize("name", programs())
def test_an_example_is_short_and_says_what_it_is(name: str) -> None:
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0].endswith(".")
    assert len(source.splitlines()) <= 110


def page() -> str:
    """For those who come from that service."""
    return (ROOT / "docs" / "migrate-dotnet.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES.split())
def test_every_name_of_the_document_is_found_in_the_page(name: str) -> None:
    assert name in page()


def test_every_feature_and_option_is_shown_by_a_test() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| ")]
    headings = [row for row in rows if row.startswith(("| there |", "| option |"))]
    features = rows[: rows.index(headings[1])] + rows[rows.index(headings[2]) :]
    unproven = [row for row in features if row not in headings and "test_" not in row]
    assert (len(features) > 40, unproven) == (True, [])


def test_every_alias_is_told_with_what_it_stands_for() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    for alias, event_type in ALIASES.items():
        assert any(f"`{alias}`" in row and f"`{event_type}`" in row for row in rows), alias


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:\w+/)+test_\w+\.py)`", page()))
    assert len(named) > 30
    assert {name for name in named if not (ROOT / "tests" / name).is_file()} == set()
