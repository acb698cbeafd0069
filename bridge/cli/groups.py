"""`flybridge groups`: shows where each consumer group stands, and removes a group."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from flybridge.bridge.cli.operator import open_desk
from flybridge.bridge.errors import BridgeError

if TYPE_CHECKING:
    from flybridge.workers.operate.groups import Groups, GroupState


STALLS = 10
"""Stalled keys that are shown; the longest stalled of each group come first."""


class GroupInUse(BridgeError):
    """A group cannot be removed now."""


@click.group()
def groups() -> None:
    """See the consumer groups, and forget one that nobody needs."""


@groups.command(name="list")
@click.option("--redis-url", help="Where the streams are.")
@click.pass_obj
def list_groups(common: dict[str, Any], /, **flags: Any) -> None:
    """List the groups: what each has not handled, and its workers.

    PENDING events are delivered and not settled, UNREAD ones not read yet (with a + if there may
    be more); READS names the domains and types to which the group has subscribed. Below stand the
    keys of ordered_by and dedup_by that make no progress, and which event each of them waits for.
    """
    from flybridge.workers.claim.stalls import stalled
    from flybridge.workers.operate.groups import Groups

    with open_desk(common, {**flags, "group": None}) as desk:
        known = Groups(desk.redis, desk.keys, desk.who)
        states, unread = known.states(), known.unread()
        still = [
            (each.name, stall)
            for each in states
            for stall in stalled(desk.redis, desk.keys, each.name)
        ]
    click.echo(f"{'GROUP':24} {'STREAMS':>7} {'PENDING':>8} {'UNREAD':>8} {'WORKERS':>7}  READS")
    for each in states:
        left = f"{each.unread.number}{'' if each.unread.exact else '+'}"
        counts = f"{each.streams:7} {each.pending:8} {left:>8} {len(each.workers):7}"
        click.echo(f"{each.name:24} {counts}  {' '.join(each.reads) or '-'}")
    for group, stall in still[:STALLS]:
        click.echo(f"{group}: {stall.sentence(group)}")
    if len(still) > STALLS:
        click.echo(f"and {len(still) - STALLS} more that stand still")
    if unread:
        types = ", ".join(f"{event_type} ({count:,})" for event_type, count in unread.items())
        click.echo(f"no group reads the events of {types}", err=True)


@groups.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--redis-url", help="Where the streams are.")
@click.pass_obj
def forget(common: dict[str, Any], /, name: str, yes: bool, **flags: Any) -> None:
    """Remove a group from every stream, and what it has not handled.

    Trimming waits for every group. A worker of this group that starts later creates it anew: see
    --from of flybridge worker.
    """
    from flybridge.workers.operate.groups import Groups

    with open_desk(common, {**flags, "group": None}) as desk:
        known = Groups(desk.redis, desk.keys, desk.who)
        question = (
            f"Forget {name} and the {_idle(known, name).unhandled.events} it has not handled?"
        )
        if not yes and not (sys.stdin.isatty() and click.confirm(question, err=True)):
            raise GroupInUse(f"nothing was forgotten ({question}); say that you mean it with --yes")
        _idle(known, name)
        click.echo(f"{name} has left {known.forget(name)} streams")


def _idle(known: Groups, name: str) -> GroupState:
    """The state of a group without workers at work.

    Raises:
        GroupInUse: it has workers, or there is no such group.
    """
    from flybridge.workers.group.presence import AT_WORK

    state = next((each for each in known.states() if each.name == name), None)
    if state is None:
        raise GroupInUse(f"there is no group {name}; see them with: flybridge groups list")
    if state.workers:
        raise GroupInUse(
            f"group {name} has {len(state.workers)} workers at work ({' '.join(state.workers)}); "
            f"stop them; those that were killed count for {AT_WORK:g} s"
        )
    return state
