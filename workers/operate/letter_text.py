"""Dead letters as text for terminals and scripts.

The content of a letter came from outside, so control characters in it are spelt out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from flybridge.bridge.config.times import show
from flybridge.handlers.envelope.lenient_json import decode
from flybridge.workers.operate.stored import Stored

WIDTH = 80
"""Characters of an error in the table."""

COLUMNS = ("letter", "died", "event id", "type", "reason", "handler", "attempts", "error")

_SHOWN = {
    "event_id", "event_type", "reason", "error", "handler", "finished", "attempts", "created_at",
    "received_at", "replayed_at", "died_at", "traceparent", "first_trace",
}  # fmt: skip


def table(letters: Sequence[Stored]) -> Iterator[str]:
    """A head and a line for each letter."""
    rows = [COLUMNS, *map(_row, letters)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def as_json(letter: Stored) -> str:
    """A letter on one line of JSON; times are Unix ms."""
    return json.dumps(
        {
            "letter": letter.id,
            "died_at": letter.at,
            "event_id": letter.event_id,
            "event_type": letter.event_type,
            "reason": letter.text("reason"),
            "handler": letter.text("handler"),
            "attempts": letter.number("attempts"),
            "error": letter.text("error"),
            "finished": letter.text("finished").splitlines(),
            "received_at": letter.number("received_at"),
            "replayed_at": letter.number("replayed_at"),
            "traceparent": letter.text("traceparent"),
            "first_trace": letter.text("first_trace"),
            "stream": letter.text("stream"),
            "entry": letter.text("entry"),
            "envelope_bytes": letter.size or 0,
        },
        ensure_ascii=False,
    )


def details(letter: Stored) -> Iterator[str]:
    """Everything about one letter but its envelope, a line a fact; what it has not is left out."""
    size = "none" if letter.size is None else f"{letter.size:,} bytes; --body shows it"
    others = {name.decode(errors="backslashreplace") for name in letter.fields} - _SHOWN
    facts = {
        "letter": f"{letter.id} in {letter.stream}",
        "event": letter.event_id,
        "type": letter.event_type,
        "reason": letter.text("reason"),
        "error": letter.text("error"),
        "handler": letter.text("handler"),
        "succeeded": ", ".join(letter.text("finished").splitlines()),
        "attempts": letter.text("attempts"),
        "created": _time(letter, "created_at"),
        "received": _time(letter, "received_at"),
        "replayed": _time(letter, "replayed_at"),
        "died": show(letter.number("died_at") or letter.at),
        "trace": _trace(letter.text("traceparent")),
        "first trace": _trace(letter.text("first_trace")),
        **{name: letter.text(name) for name in sorted(others)},
        "envelope": size,
    }
    return (f"{printable(name):<12}{printable(value)}" for name, value in facts.items() if value)


def body(envelope: bytes) -> str:
    """An envelope for people: indented if it is JSON, else as it is."""
    try:
        return json.dumps(decode(envelope), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return printable(envelope.decode(errors="backslashreplace"))


def printable(text: str) -> str:
    """The text with control characters spelt out: they move a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _row(letter: Stored) -> tuple[str, ...]:
    error = printable(letter.text("error").partition("\n")[0])
    cells = (
        letter.id,
        show(letter.at),
        letter.event_id,
        letter.event_type,
        letter.text("reason"),
        letter.text("handler"),
        letter.text("attempts"),
    )
    short = error if len(error) <= WIDTH else error[: WIDTH - 1] + "…"
    return (*(printable(cell) or "-" for cell in cells), short)


def _time(letter: Stored, name: str) -> str:
    ms = letter.number(name)
    return show(ms) if ms else ""


def _trace(traceparent: str) -> str:
    trace_id = traceparent.split("-")[1:2]
    return f"{trace_id[0]} ({traceparent})" if trace_id else traceparent
