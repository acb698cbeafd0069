"""Log lines in a program that embeds Flybridge: where they go, and what they never contain."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from rich.console import Console
from rich.logging import RichHandler
from structlog.testing import capture_logs

from flybridge.bridge.telemetry import logs
from flybridge.bridge.telemetry.logs import OFF
from flybridge.handlers import loggers
from flybridge.handlers.base import Context
from flybridge.handlers.loggers import get_logger

PASSWORD = "hunter2-in-a-local"


@pytest.fixture(autouse=True)
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program in which nobody has configured logging."""
    monkeypatch.setattr(loggers, "_destination", loggers._Destination(logging.NOTSET, None))
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    if before:
        structlog.configure(**before)


def fail() -> None:
    password = PASSWORD
    try:
        raise ValueError(len(password))
    except ValueError:
        get_logger("flybridge.workers.run.runner").warning(
            "attempt.failed", event_id="e1", exc_info=True
        )


def by_logging(out: io.StringIO) -> logging.Handler:
    return logging.StreamHandler(out)


def by_rich_logging(out: io.StringIO) -> logging.Handler:
    console = Console(file=out, width=120)
    return RichHandler(console=console, rich_tracebacks=True, tracebacks_show_locals=True)


def with_handler(made: logging.Handler) -> None:
    logging.getLogger().addHandler(made)


@pytest.mark.parametrize("handler", [by_logging, by_rich_logging])
def test_unconfigured_structlog_is_left_alone_and_logging_gets_the_lines(
    handler: Callable[[io.StringIO], logging.Handler], caplog: pytest.LogCaptureFixture
) -> None:
    out = io.StringIO()
    made, log = handler(out), logging.getLogger("flybridge.workers.run.runner")
    log.addHandler(made)
    fail()
    log.removeHandler(made)
    assert "attempt.failed event_id='e1'" in out.getvalue()
    assert "ValueError: 18" in out.getvalue()
    assert PASSWORD not in out.getvalue()
    assert [record.name for record in caplog.records] == ["flybridge.workers.run.runner"]
    assert caplog.records[0].exc_info is None
    assert not structlog.is_configured()


@pytest.mark.parametrize(
    "last",
    [
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.RichTracebackFormatter())],
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()],
        [structlog.processors.JSONRenderer(default=repr)],
    ],
    ids=["rich", "dict_tracebacks", "repr"],
)
def test_configured_structlog_gets_the_lines_and_no_exception_to_render(
    last: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.configure(processors=[structlog.processors.add_log_level, *last])
    fail()
    said = capsys.readouterr().out
    assert "attempt.failed" in said
    assert "ValueError: 18" in said
    assert PASSWORD not in said


def test_a_program_may_configure_structlog_later(caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("flybridge.bridge.node.reconnector")
    log.warning("first")
    with capture_logs() as lines:
        log.warning("second")
    assert caplog.messages == ["first"]
    assert [line["event"] for line in lines] == ["second"]


def test_a_level_and_off_hold_wherever_the_lines_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = get_logger("flybridge.bridge.node.reconnector")
    for level, heard in (("debug", 2), ("info", 1), ("off", 0)):
        logs.embed(level)
        structlog.reset_defaults()
        caplog.clear()
        log.debug("a.detail")
        log.critical("the.end")
        assert len(caplog.messages) == heard
        with capture_logs() as lines:
            log.debug("a.detail")
            log.critical("the.end")
        assert len(lines) == heard


def test_secrets_are_taken_out_and_bound_fields_kept(caplog: pytest.LogCaptureFixture) -> None:
    logs.embed("info")
    bound = Context(2, 5, 0.0, "e1", "im.x", "mine").logger.bind(more=1)
    bound.warning("asked", url="redis://:pass-word-9@host/0?token=abc")
    (message,) = caplog.messages
    assert message.startswith("asked event_id='e1' event_type='im.x' handler='mine' attempt=2")
    assert "more=1" in message
    assert "pass-word-9" not in message
    assert "abc" not in message


def test_in_a_process_of_our_own_nothing_is_a_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    loggers.use_configured()
    loggers.embed(OFF, lambda logger, method, line: {})
    with capture_logs() as lines:
        fail()
    assert lines[0]["exc_info"] is True
