"""Every line has one shape, and no line holds a secret."""

from __future__ import annotations

import gc
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from flybridge.bridge.telemetry import logs
from flybridge.bridge.telemetry.redaction import REDACTED

CANARY = "canary-8f3a/1c+77"
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Logging is global to the process: put everything back that `configure` sets."""
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, sys.excepthook
    last_resort = logging.lastResort
    in_thread, unraisable = threading.excepthook, sys.unraisablehook
    levels = {name: logging.getLogger(name).level for name in logs.FLOORS}
    yield
    root.handlers[:], sys.excepthook = handlers, hook
    threading.excepthook, sys.unraisablehook = in_thread, unraisable
    logging.captureWarnings(False)
    logging.lastResort = last_resort
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_json_line_holds_event_fields_level_logger_and_a_utc_time_with_milliseconds(
    lines: Lines,
) -> None:
    logs.configure("info", "json")
    structlog.get_logger("flybridge.bridge.leadership.lease").info("lease.acquired", term=7)

    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "event": "lease.acquired",
        "term": 7,
        "level": "info",
        "logger": "flybridge.bridge.leadership.lease",
    }


def test_a_librarys_record_has_the_same_shape_as_ours(lines: Lines) -> None:
    logs.configure("info", "json")
    logging.getLogger("celery.worker").warning("lost %s", "a child")

    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == (
        "lost a child",
        "warning",
        "celery.worker",
    )
    assert line["timestamp"].endswith("Z")


def test_a_logger_that_hands_nothing_on_is_heard_in_the_same_shape(lines: Lines) -> None:
    logs.configure("info", "json")
    alone = logging.getLogger("multiprocessing")
    alone.propagate = False
    try:
        alone.error("a child is gone")
    finally:
        alone.propagate = True

    (line,) = lines()
    assert (line["event"], line["level"]) == ("a child is gone", "error")


def test_a_line_within_a_span_carries_its_ids(lines: Lines) -> None:
    logs.configure("info", "json")
    with TracerProvider().get_tracer("test").start_as_current_span("receive feishu") as span:
        structlog.get_logger("bridge").info("event.published")
        logging.getLogger("celery").warning("from a library")

    context = span.get_span_context()
    for line in lines():
        assert line["trace_id"] == f"{context.trace_id:032x}"
        assert line["span_id"] == f"{context.span_id:016x}"


def test_a_line_outside_a_span_carries_no_ids(lines: Lines) -> None:
    logs.configure("info", "json")
    structlog.get_logger("bridge").info("bridge.started")

    assert "trace_id" not in lines()[0]


def test_console_lines_are_readable_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")

    structlog.get_logger("flybridge.bridge.leadership.lease").info("lease.acquired", term=7)

    assert re.search(
        r"lease\.acquired\s+\[flybridge\.bridge\.leadership\.lease\]\s+term=7",
        capsys.readouterr().err,
    )


def test_a_disabled_level_costs_no_processing(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")

    class Explosive:
        def __repr__(self) -> str:
            raise AssertionError("formatted although debug is off")

    structlog.get_logger("bridge").debug("event.published", entry=Explosive())

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("redis_lock.acquire", logging.WARNING),
        ("websockets.client", logging.INFO),
        ("celery.app.trace", logging.INFO),
        ("celery.worker.strategy", logging.INFO),
        ("kombu.connection", logging.INFO),
    ],
)
def test_a_noisy_library_keeps_silent_even_at_debug(
    name: str, level: int, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("debug", "json")

    logging.getLogger(name).log(level, "chatter")
    assert capsys.readouterr().err == ""

    logging.getLogger(name).error("trouble")
    assert "trouble" in capsys.readouterr().err


@pytest.mark.parametrize(
    "key",
    ["app_secret", "token", "tenant_access_token", "ticket", "AccessKey", "Authorization"],
)
def test_a_field_with_a_secret_name_is_blanked_at_any_depth(key: str, lines: Lines) -> None:
    logs.configure("info", "json")
    structlog.get_logger("bridge").info("x", **{key: "hush-1"}, nested={"list": [{key: "hush-2"}]})

    (line,) = lines()
    assert line[key] == REDACTED
    assert line["nested"] == {"list": [{key: REDACTED}]}


def test_a_url_loses_its_password_and_its_query_but_keeps_its_host(lines: Lines) -> None:
    logs.configure("info", "json")
    structlog.get_logger("bridge").info(
        "feishu.connecting",
        url="wss://msg.feishu.cn/ws/v2?device_id=1&ticket=hush",
        redis="redis://user:hush@redis.internal:6379/0",
        plain="https://open.feishu.cn/app",
    )

    (line,) = lines()
    assert line["url"] == "wss://msg.feishu.cn/ws/v2?[redacted]"
    assert line["redis"] == "redis://[redacted]@redis.internal:6379/0"
    assert line["plain"] == "https://open.feishu.cn/app"


def test_a_secret_named_inside_a_text_is_blanked(lines: Lines) -> None:
    logs.configure("info", "json")
    logging.getLogger("requests").warning(
        """POST {"AppSecret": "hush", "n": 1} Authorization: Bearer hush, ticket=hush&x=1"""
    )

    assert lines()[0]["event"] == (
        'POST {"AppSecret": "[redacted]", "n": 1} '
        "Authorization: Bearer [redacted], ticket=[redacted]&x=1"
    )


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_app_secret_stands_nowhere(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", log_format, secrets=[CANARY, ""])
    log = structlog.get_logger("bridge")

    log.info(f"x {CANARY}", field=CANARY, inside=[{"a": f"<{CANARY}>"}], raw=CANARY.encode())
    log.info("x", error=ValueError(CANARY), url=f"https://h/canary-8f3a%2F1c%2B77/{CANARY}")
    logging.getLogger("celery").warning("args: %s %r", CANARY, {CANARY: CANARY})
    for report in (log.exception, logging.getLogger("redis").exception):
        try:
            raise RuntimeError(f"bad secret {CANARY}")
        except RuntimeError:
            report("failed")
    sys.excepthook(RuntimeError, RuntimeError(CANARY), None)

    printed = capsys.readouterr().err
    assert "RuntimeError: bad secret [redacted]" in printed
    assert "process.crashed" in printed
    assert CANARY not in printed
    assert "canary" not in printed


def test_what_nobody_catches_in_a_thread_or_a_destructor_is_a_line_without_secrets(
    lines: Lines,
) -> None:
    logs.configure("info", "json", secrets=[CANARY])

    def fail(*_: object) -> None:
        raise ValueError(f"no way with {CANARY}")

    thread = threading.Thread(target=fail, name="users-own")
    thread.start()
    thread.join()
    made = type("Odd", (), {"__del__": fail})()
    del made
    gc.collect()

    crashed, ignored = lines()
    assert (crashed["event"], crashed["thread"]) == ("thread.crashed", "users-own")
    assert "ValueError: no way with [redacted]" in crashed["exception"]
    assert ignored["event"] == "exception.ignored"
    assert "ValueError: no way with [redacted]" in ignored["exception"]


FORGED = "x\n2026-01-01T00:00:00.000Z [info     ] event.done\u202e\u2028\x1b[2J\ud83d\r"
"""As an event's text, an exception or a library may hold it."""


def test_only_lines_of_ours_begin_at_the_left_of_a_console(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "console")
    try:
        raise ValueError(FORGED)
    except ValueError:
        structlog.get_logger("bridge").exception("handler.failed", text=FORGED, parts=[FORGED])
    logging.getLogger("library").warning(FORGED)
    logging.getLogger("library").warning("with a stack", stack_info=True)

    printed = capsys.readouterr().err
    ours = [line for line in printed.split("\n") if line and not line.startswith(logs.INDENT)]
    assert len(ours) == 3
    assert "ValueError: x" in printed
    assert not [each for each in "\u202e\u2028\x1b\r" if each in printed]
    assert "\\u202e" in printed


def test_json_lines_hold_no_text_that_turns_or_moves_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json")
    structlog.get_logger("bridge").info(FORGED, text=FORGED, nested={FORGED: FORGED})

    (line,) = capsys.readouterr().err.splitlines()
    assert not [each for each in "\u202e\u2028\x1b\r\ud83d" if each in line]
    json.loads(line)


def test_warnings_of_python_and_lines_that_cannot_be_formatted_keep_the_shape(
    lines: Lines,
) -> None:
    logs.configure("info", "json")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logs.log_uncaught()
        warnings.warn("old\nways", DeprecationWarning, stacklevel=1)
    logging.getLogger("library").warning("%d of %d", "many")

    warned, failed = lines()
    assert (warned["event"], warned["category"]) == ("python.warning", "DeprecationWarning")
    assert warned["text"] == "old\nways"
    assert "a line of library cannot be written" in failed["event"]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_file_takes_the_lines_and_may_be_rotated(
    log_format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "worker.log"
    logs.configure("info", log_format, file=str(file))
    structlog.get_logger("bridge").info("first", text="\ud83d")
    file.rename(tmp_path / "worker.log.1")
    logging.getLogger("library").warning("second")

    assert "first" in (tmp_path / "worker.log.1").read_text()
    assert "second" in file.read_text()
    logs.configure("info", log_format)
    assert capsys.readouterr().err == ""


def test_hostile_text_cannot_move_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")

    structlog.get_logger("bridge").info("event.unknown", event_type="im.\x1b[2J\r.x")

    printed = capsys.readouterr().err
    assert "\x1b[2J" not in printed
    assert r"im.\x1b[2J\x0d.x" in printed


def test_off_is_silence_for_us_and_for_libraries_that_set_a_level_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("off", "json")
    loud = logging.getLogger("some.library")
    loud.setLevel(logging.DEBUG)
    loud.critical("lost")
    structlog.get_logger("bridge.off").critical("lease.lost", exc_info=ValueError("x"))

    assert capsys.readouterr().err == ""


def test_with_logs_off_what_ends_the_process_is_still_a_sentence_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("off", "json", secrets=[CANARY])
    sys.excepthook(RuntimeError, RuntimeError(f"no way\nwith {CANARY}"), None)

    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [each["reason"] for each in said] == ["RuntimeError: no way", "with [redacted]"]
