"""`flybridge dlq` and `flybridge replay`: look at dead letters, and bring events back."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from flybridge.bridge.cli.operator import (
    Desk,
    Report,
    of_group,
    open_desk,
    open_group_desk,
    paced,
    selected,
)
from flybridge.bridge.errors import PluginBroken
from flybridge.bridge.store.streams import BRIDGE_GROUP

if TYPE_CHECKING:
    from flybridge.bridge.config.settings import WorkerSettings
    from flybridge.handlers.registry import Registry
    from flybridge.workers.operate.letters import Letters
    from flybridge.workers.operate.stored import Stored

LIMIT = 50
"""Letters that `dlq list` shows."""

LEFT_OUT = frozenset({"done", "running", "retry", "dead", "unknown", "gone"})
"""States of events that a replay of a window leaves out; they are no failure."""


@click.group()
def dlq() -> None:
    """Look at, replay or delete dead letters.

    Dead letters are events that handlers gave up. ID is the id of a letter or of an event. The
    group `bridge` has the frames that held no event.
    """


@dlq.command("list")
@selected
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@of_group
@click.pass_obj
def list_letters(
    common: dict[str, Any], /, event_type: str, reason: str, limit: int, as_json: bool, **flags: Any
) -> None:
    """List dead letters, the newest first."""
    from flybridge.workers.operate import letter_text
    from flybridge.workers.operate.letters import Selection

    with open_group_desk(common, flags) as desk:
        letters = desk.letters()
        chosen = letters.newest(Selection(event_type, reason))
        shown = list(itertools.islice(chosen, limit))
        total = letters.count()
    if shown:
        lines = map(letter_text.as_json, shown) if as_json else letter_text.table(shown)
        click.echo("\n".join(lines))
    like = " like that" if event_type or reason else ""
    letters_in_all = f"{total:,} dead letter{'s' * (total != 1)}"
    click.echo(f"{len(shown):,}{like} shown; group {desk.group} has {letters_in_all}", err=as_json)


@dlq.command()
@click.argument("name", metavar="ID")
@click.option("--body", is_flag=True, help="The envelope, too: it holds what people wrote.")
@of_group
@click.pass_obj
def show(common: dict[str, Any], /, name: str, body: bool, **flags: Any) -> None:
    """Show one dead letter in full."""
    from flybridge.workers.operate import letter_text
    from flybridge.workers.operate.refusal_text import Refused, missing

    with open_group_desk(common, flags) as desk:
        letters = desk.letters()
        found = letters.find([name])[name]
        if not found:
            raise Refused(missing(name, desk.group, letters.states([name])[name]))
        for letter in found:
            click.echo("\n".join(letter_text.details(letter)))
            if body:
                click.echo(letter_text.body(letters.envelope(letter) or b""))


@dlq.command("replay")
@click.argument("names", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All, or those of --type and --reason.")
@selected
@paced
@click.option("--handlers", help="Modules with handlers, as the workers have them.")
@click.option("--force", is_flag=True, help="Do not ask whether the handlers are there.")
@of_group
@click.pass_obj
def replay_letters(
    common: dict[str, Any],
    /,
    names: tuple[str, ...],
    every: bool,
    event_type: str,
    reason: str,
    rate: float,
    dry_run: bool,
    force: bool,
    **flags: Any,
) -> None:
    """Move dead letters back to the workers of their group.

    The event keeps its id, and only handlers that had not succeeded run. If it fails again, it
    becomes a new letter. The exit code is 1 if any letter was not replayed.
    """
    from flybridge.workers.operate.refusal_text import Refused

    _check_choice(names, every, event_type or reason)
    if flags["group"] == BRIDGE_GROUP:
        raise Refused(
            "dead letters of the bridge hold no event that can be read, so none can be replayed; "
            "look at one with: flybridge dlq show ID --group bridge --body"
        )
    with open_group_desk(common, flags, changes=True) as desk:
        registry = None if force else _registry(desk.settings)
        done = "would replay" if dry_run else "replayed"
        with Report(done, desk, registry=registry, changes=not dry_run) as report:
            chosen = _chosen(desk, names, event_type, reason, report)
            for answer in desk.replayer(rate, dry_run=dry_run).replay(chosen, registry):
                report.add(answer)
    sys.exit(report.exit_code)


@dlq.command()
@click.argument("names", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All, or those of the options below.")
@selected
@click.option("--before", metavar="TIME", help="Died before: 2h or 7d ago, or RFC 3339.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@of_group
@click.pass_obj
def purge(
    common: dict[str, Any],
    /,
    names: tuple[str, ...],
    every: bool,
    event_type: str,
    reason: str,
    before: str | None,
    yes: bool,
    **flags: Any,
) -> None:
    """Delete dead letters for good. Their events are lost then."""
    _check_choice(names, every, event_type or reason or before)
    with open_group_desk(common, flags, changes=True) as desk:
        earlier = None if before is None else desk.moment("--before", before)
        if not yes:
            _confirm(_chosen(desk, names, event_type, reason, None, earlier))
        with Report("purged", desk) as report:
            chosen = _chosen(desk, names, event_type, reason, report, earlier)
            _purge(desk.letters(), chosen, report)
    sys.exit(report.exit_code)


@click.command()
@click.option("--from", "first", metavar="TIME", required=True, help="2h (ago), or RFC 3339.")
@click.option("--to", "last", metavar="TIME", help="Likewise.  [default: now]")
@click.option("--type", "event_type", default="", help="A type, or a pattern like im.*")
@click.option("--again", is_flag=True, help="Also events that are done or forgotten.")
@paced
@of_group
@click.pass_obj
def replay(
    common: dict[str, Any],
    /,
    first: str,
    last: str | None,
    event_type: str,
    again: bool,
    rate: float,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Give a group the events of some hours once more.

    Only events that the streams still hold can be given. Nothing is handled twice unless --again
    says so: an event that is done, in work or dead is left out, and so is one that is so old that
    what became of it is forgotten.
    """
    from flybridge.workers.operate.replay import Window, marks_kept, marks_since

    with open_desk(common, flags, changes=True) as desk:
        now = desk.now()
        start = desk.moment("--from", first)
        end = now if last is None else desk.moment("--to", last)
        if start > end:
            raise click.UsageError("--from is later than --to; exchange them")
        window = Window(desk.redis, desk.keys, desk.group, start, end, event_type)
        window.check()
        since = marks_since(now, marks_kept(desk.redis, desk.keys, desk.group))
        replayer = desk.replayer(rate, dry_run=dry_run)
        done = "would re-feed" if dry_run else "re-fed"
        with Report(done, desk, accepted=LEFT_OUT, changes=not dry_run) as report:
            for answer in replayer.refeed(window.entries(), since, again=again):
                report.add(answer)
    sys.exit(report.exit_code)


def _check_choice(names: tuple[str, ...], every: bool, options: object) -> None:
    if names and (every or options):
        raise click.UsageError("give IDs, or --all with what to choose by; not both")
    if not names and not every:
        raise click.UsageError("give IDs, or --all")


def _chosen(
    desk: Desk,
    names: tuple[str, ...],
    event_type: str,
    reason: str,
    report: Report | None,
    before: int | None = None,
) -> Iterator[Stored]:
    """The selected letters, each once. The report lists names without a letter."""
    from flybridge.workers.operate.letters import Selection
    from flybridge.workers.operate.refusal_text import missing

    letters = desk.letters()
    if not names:
        return letters.oldest(Selection(event_type, reason), before)
    found = letters.find(names)
    if report is not None:
        absent = [name for name in found if not found[name]]
        for name, state in letters.states(absent).items():
            report.refuse("missing", missing(name, desk.group, state))
    return iter({each.id: each for each in itertools.chain(*found.values())}.values())


def _confirm(chosen: Iterator[Stored]) -> None:
    from flybridge.workers.operate.refusal_text import Refused

    if not sys.stdin.isatty():
        raise Refused("dead letters are deleted for good; say that you mean it with --yes")
    count = sum(1 for _ in chosen)
    if count and not click.confirm(f"Delete {count:,} dead letters for good?", err=True):
        raise Refused("nothing was deleted")


def _purge(letters: Letters, chosen: Iterable[Stored], report: Report) -> None:
    from flybridge.workers.operate.replay import BATCH, Answer

    source = iter(chosen)
    while batch := list(itertools.islice(source, BATCH)):
        for letter, deleted in zip(batch, letters.purge(batch), strict=True):
            report.add(Answer(letter, "moved" if deleted else "gone"))


def _registry(settings: WorkerSettings) -> Registry:
    from flybridge.handlers import errors
    from flybridge.handlers.loading.plugins import load
    from flybridge.handlers.registry import registry

    try:
        load(settings.handlers)
    except errors.PluginBroken as error:
        raise PluginBroken(f"{error}; or use --force if the workers have it") from error
    return registry
