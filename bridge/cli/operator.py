"""What the operator commands share: options, a Redis client, the report at the end."""

from __future__ import annotations

import functools
import getpass
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from flybridge.bridge.cli.start import begin
from flybridge.bridge.errors import EXIT_REDIS, BridgeError, RedisUnreachable
from flybridge.bridge.store.streams import BRIDGE_GROUP

if TYPE_CHECKING:
    from redis import Redis

    from flybridge.bridge.config.settings import WorkerSettings
    from flybridge.bridge.store.streams import Keys
    from flybridge.handlers.registry import Registry
    from flybridge.workers.operate.letters import Letters
    from flybridge.workers.operate.replay import Answer, Replayer

RATE = 50.0
"""Events replayed per second, so that a pool that was just mended is not flooded."""

REFUSALS = 20
"""Refusals that are printed one by one."""

REPEAT = " What is replayed or purged stays so: repeat the command for the rest."

PROGRESS = 1000
"""Events between two lines of progress."""

Command = TypeVar("Command", bound=Callable[..., Any])


class UnknownGroup(BridgeError):
    """There is no such consumer group."""


class RedisRefused(BridgeError):
    """Redis answers and refuses."""

    exit_code = EXIT_REDIS


@dataclass(frozen=True, slots=True)
class Desk:
    """What an operator command works with."""

    settings: WorkerSettings
    redis: Redis
    keys: Keys
    group: str
    who: str
    """user@host, for the audit."""

    def letters(self) -> Letters:
        from flybridge.workers.operate.letters import Letters

        return Letters(self.redis, self.keys, self.group, self.who)

    def replayer(self, rate: float, *, dry_run: bool) -> Replayer:
        from flybridge.workers.operate.replay import Pace, Replayer

        pace = Pace(rate)
        return Replayer(self.redis, self.keys, self.group, self.who, pace=pace, dry_run=dry_run)

    def now(self) -> int:
        """Unix ms by Redis' clock, as in the ids of entries."""
        now: Any = self.redis.time()
        return int(now[0]) * 1000 + int(now[1]) // 1000

    def moment(self, option: str, text: str) -> int:
        """The point in time that was given to an option, in Unix ms."""
        from flybridge.bridge.config.times import parse

        try:
            return parse(text, self.now())
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=option) from None


@contextmanager
def open_desk(
    common: dict[str, Any], flags: dict[str, Any], *, changes: bool = False
) -> Iterator[Desk]:
    """Read the settings and connect to Redis; errors of Redis in the block become sentences.

    Args:
        common: the options of `flybridge` itself.
        flags: the options of the command.
        changes: whether the command changes anything.

    Raises:
        RedisUnreachable, RedisRefused: instead of what redis-py raises.
    """
    from redis.exceptions import RedisError

    from flybridge.bridge.config.settings import WorkerSettings
    from flybridge.bridge.store.client import check_port, sync_client
    from flybridge.bridge.store.streams import Keys

    group = flags.pop("group")
    # No worker may have the bridge's group, so the settings refuse it.
    ours = None if group == BRIDGE_GROUP else group
    settings = begin(WorkerSettings, common, {**flags, "group": ours})
    redis = sync_client(settings.redis_url, app_id=settings.app_id)
    try:
        keys = Keys(settings.app_id)
        check_port(redis)
        _note_if_unknown(redis, keys, settings.app_id)
        yield Desk(settings, redis, keys, group or settings.group, who())
    except (RedisError, OSError) as error:
        raise _trouble(redis, error, again=REPEAT if changes else "") from error
    finally:
        redis.close()


@contextmanager
def open_group_desk(
    common: dict[str, Any], flags: dict[str, Any], *, changes: bool = False
) -> Iterator[Desk]:
    """`open_desk` for a command about one group.

    Raises:
        UnknownGroup: there is no such group.
    """
    asked = flags["group"]
    with open_desk(common, flags, changes=changes) as desk:
        _refuse_unknown(desk, asked)
        yield desk


class Report:
    """Counts answers, prints refusals and progress to stderr, and sums up at the end of its block.

    Args:
        done: the word for what was moved.
        registry: names the handlers in refusals.
        accepted: results that are no failure.
        changes: False for a dry run, which is not logged.
    """

    def __init__(
        self,
        done: str,
        desk: Desk,
        *,
        registry: Registry | None = None,
        accepted: frozenset[str] = frozenset(),
        changes: bool = True,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._done = done
        self._desk = desk
        self._registry = registry
        self._accepted = accepted | {"moved"}
        self._changes = changes
        self._told = 0

    @property
    def exit_code(self) -> int:
        """1 if something was refused, else 0."""
        return int(not self.counts.keys() <= self._accepted)

    def add(self, answer: Answer) -> None:
        """Count an answer, and print it if it is a refusal."""
        from flybridge.workers.operate.refusal_text import why

        self.counts[answer.result] += 1
        if answer.result not in self._accepted:
            self._tell(why(answer, self._registry))
        if self.counts.total() % PROGRESS == 0:
            click.echo(self._summary(), err=True)

    def refuse(self, result: str, sentence: str) -> None:
        """Count and print what was not even tried."""
        self.counts[result] += 1
        self._tell(sentence)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Sum up, even when Redis failed in the middle."""
        from flybridge.handlers.loggers import get_logger

        click.echo(self._summary())
        if self._changes and self.counts["moved"]:
            get_logger(__name__).info(
                "audit.written",
                action=self._done,
                count=self.counts["moved"],
                group=self._desk.group,
                who=self._desk.who,
                audit=self._desk.keys.audit,
            )

    def _summary(self) -> str:
        from flybridge.workers.operate.refusal_text import summary

        return summary(self.counts, self._done)

    def _tell(self, sentence: str) -> None:
        from flybridge.workers.operate.letter_text import printable

        self._told += 1
        if self._told <= REFUSALS:
            click.echo(f"flybridge: {printable(sentence)}", err=True)
        elif self._told == REFUSALS + 1:
            click.echo("flybridge: … the others are counted below", err=True)


def of_group(command: Command) -> Command:
    """Add the options that every operator command has."""
    return _with(
        command,
        click.option("--group", help="Consumer group.  [default: FLYBRIDGE_GROUP, or workers]"),
        click.option("--redis-url", help="Where the streams are."),
    )


def selected(command: Command) -> Command:
    """Add the options that select dead letters."""
    return _with(
        command,
        click.option("--type", "event_type", default="", help="A type, or a pattern like im.*"),
        click.option("--reason", default="", help="attempts, age, rejected, decode, crash_loop, …"),
    )


def paced(command: Command) -> Command:
    """Add the options of commands that replay."""
    rate = click.FloatRange(0.1, 100_000)
    return _with(
        command,
        click.option("--rate", type=rate, default=RATE, show_default=True, help="Events a second."),
        click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing."),
    )


def _with(command: Command, *options: Callable[[Command], Command]) -> Command:
    return functools.reduce(lambda made, option: option(made), reversed(options), command)


def _note_if_unknown(redis: Redis, keys: Keys, app_id: str) -> None:
    """Warn of an app id that Redis does not know: a typo looks like an app without trouble."""
    from flybridge.bridge.store.client import address

    if not redis.exists(keys.types):
        click.echo(
            f"flybridge: no event of app {app_id} has ever come to Redis at {address(redis)}; if "
            "one should have, check FLYBRIDGE_APP_ID and FLYBRIDGE_REDIS_URL",
            err=True,
        )


def _refuse_unknown(desk: Desk, asked: str | None) -> None:
    """Refuse a group that Redis does not know: a typo looks like a group without trouble.

    The default group may have had no worker yet, unless there are other groups.
    """
    from flybridge.workers.operate.groups import Groups

    groups = Groups(desk.redis, desk.keys, desk.who)
    if desk.group == BRIDGE_GROUP or groups.knows(desk.group):
        return
    known = [each.name for each in groups.states()]
    if asked or known:
        raise UnknownGroup(
            f"there is no group {desk.group} of app {desk.keys.app_id} (groups: "
            f"{', '.join(known) or 'none'}); give another --group, or start a worker of this one"
        )


def _trouble(redis: Redis, error: Exception, *, again: str) -> BridgeError:
    from redis.exceptions import OutOfMemoryError, ResponseError

    from flybridge.bridge.store.client import address, unreachable

    if isinstance(error, OutOfMemoryError):
        return RedisRefused(
            "Redis is full (maxmemory), so nothing more is replayed; wait until the workers have "
            f"drained it, or raise maxmemory.{again}"
        )
    if isinstance(error, ResponseError):
        return RedisRefused(f"Redis at {address(redis)} refused ({error}); mend that.{again}")
    return RedisUnreachable(f"{unreachable(error, address(redis))}{again}")


def who() -> str:
    """user@host, for logs and the audit."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
