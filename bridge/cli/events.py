"""`flybridge events`: the known event types, their samples and payload schemas; works offline."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


def complete_types(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a type in the shell, among those with a sample."""
    names = sorted(path.stem for path in _folder_of_samples().glob("*.json"))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _folder_of_samples() -> Path:
    """Found without importing `handlers`, which would take too long for a shell."""
    found = find_spec("flybridge.handlers")
    return Path(found.origin).with_name("samples") if found and found.origin else Path()


@click.command()
@click.argument("event_type", metavar="[TYPE]", required=False, shell_complete=complete_types)
@click.option("--all", "every", is_flag=True, help="List types without a sample, too.")
@click.option("--schema", is_flag=True, help="The JSON schema of TYPE's payload, not a sample.")
@click.option("--json", "compact", is_flag=True, help="For machines: JSON on one line.")
def events(event_type: str | None, every: bool, schema: bool, compact: bool) -> None:
    """List the known event types, or show a sample of TYPE.

    A sample can be changed and pushed: flybridge trigger --file.
    """
    if event_type is None and schema:
        raise click.UsageError("--schema shows the payload of one TYPE; name it")
    if event_type is not None and every:
        raise click.UsageError("--all lists types; leave TYPE or --all out")
    if event_type is not None:
        _check_known(event_type)
        shown = _schema(event_type) if schema else _sample(event_type)
        click.echo(_json(shown, compact=compact))
        return
    rows = _rows(every=every)
    click.echo(_json(rows, compact=True) if compact else _table(rows))


def _check_known(event_type: str) -> None:
    """Refuse an unknown type; say on stderr what an alias stands for."""
    from difflib import get_close_matches

    from flybridge.handlers.types import ALIASES, KNOWN_TYPES, STATUS_OF_ALIAS

    if event_type in ALIASES:
        status = STATUS_OF_ALIAS.get(event_type)
        real = ALIASES[event_type] + (f" with status {status}" if status else "")
        click.echo(f"{event_type} is an alias; Feishu sends {real}.", err=True)
    elif event_type not in KNOWN_TYPES:
        near = get_close_matches(event_type, sorted(KNOWN_TYPES | set(ALIASES)), 3, 0.5)
        hint = f"near: {', '.join(near)}" if near else "see them all: flybridge events --all"
        raise click.UsageError(f"Feishu is not known to send {event_type!r}; {hint}")


def _schema(event_type: str) -> dict[str, Any]:
    from flybridge.handlers.payloads import payload_model

    return payload_model(event_type).model_json_schema()


def _sample(event_type: str) -> dict[str, Any]:
    from flybridge.handlers.samples import sample, sample_types
    from flybridge.handlers.types import canonical

    if canonical(event_type) not in sample_types():
        raise click.UsageError(
            f"There is no sample of {event_type} yet; push an envelope of your own: "
            "flybridge trigger --file"
        )
    return sample(event_type)


def _rows(*, every: bool) -> list[dict[str, Any]]:
    from flybridge.handlers.samples import sample_types
    from flybridge.handlers.types import ALIASES, KNOWN_TYPES, domain

    return [
        {
            "type": name,
            "queue": domain(name),
            "model": _model(name),
            "aliases": [alias for alias, real in ALIASES.items() if real == name],
            "sample": name in sample_types(),
        }
        for name in (sorted(KNOWN_TYPES) if every else sample_types())
    ]


def _model(event_type: str) -> str | None:
    """Module and class below `flybridge.handlers.payloads`; None: any fields."""
    from flybridge.handlers.payloads import Payload, payload_model

    model = payload_model(event_type)
    return None if model is Payload else f"{model.__module__.rpartition('.')[2]}.{model.__name__}"


def _table(rows: Iterable[dict[str, Any]]) -> str:
    cells = [("TYPE", "QUEUE", "PAYLOAD", "ALIASES")]
    cells += [
        (row["type"], row["queue"], row["model"] or "-", " ".join(row["aliases"])) for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def _json(shown: object, *, compact: bool) -> str:
    return json.dumps(shown, ensure_ascii=False, indent=None if compact else 2)
