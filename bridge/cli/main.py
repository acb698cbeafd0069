"""The `flybridge` command. Each command imports what it needs itself, so that `--help` is instant.

The exit codes are those of `errors`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click

from flybridge.bridge.cli.events import events
from flybridge.bridge.cli.groups import groups
from flybridge.bridge.cli.handlers import handlers
from flybridge.bridge.cli.letters import dlq, replay
from flybridge.bridge.cli.local import demo, dev, local, trigger
from flybridge.bridge.cli.start import begin
from flybridge.bridge.errors import BridgeError, PluginBroken

EXAMPLES = """\b
examples:
  # a bridge and a worker for the app in ./.env
  $ flybridge run
  $ flybridge worker --handlers myapp.feishu
\b
  # a worker for two domains only, with eight handlers at once
  $ flybridge worker --queues im,contact --pool threads --concurrency 8
\b
  # thousands of async handlers at once, in one process
  $ flybridge worker --pool asyncio --concurrency 2000
\b
  # no Feishu app at hand: a local stand-in, and a sample event through it
  $ flybridge local
  $ FLYBRIDGE_DOMAIN=http://127.0.0.1:8719 flybridge run
  $ flybridge trigger im.message.receive_v1 --set message.content=hello
\b
  # a local gateway that speaks JSON text, and a bridge that does
  $ flybridge local --text
  $ FLYBRIDGE_DOMAIN=http://127.0.0.1:8719 FLYBRIDGE_TEXT_DIALECT=true flybridge run
\b
  # the same event three times, as Feishu pushes it when an ack is lost
  $ flybridge trigger im.message.receive_v1 --same-id --count 3
\b
  # one module of handlers more, in all running workers
  $ flybridge handlers register myapp.surveys
\b
  # what handlers gave up; and once more, with the handler mended
  $ flybridge dlq list
  $ flybridge dlq replay --all --type im.message.receive_v1 --handlers myapp.feishu
"""


class Commands(click.Group):
    """A group of commands that print a BridgeError as sentences, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BridgeError as error:
            from flybridge.bridge.telemetry.logs import say_last

            say_last(str(error), as_json=_tells_json(ctx))
            ctx.exit(error.exit_code)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(each.name or "", each.get_short_help_str(70)) for each in commands]
                formatter.write_dl(rows, col_max=10)


@click.group(
    cls=Commands, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--env-file", type=click.Path(path_type=Path, dir_okay=False), help="Read instead of ./.env."
)
@click.option("--log-format", type=click.Choice(["console", "json"]), help="[default: by terminal]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error", "off"]))
@click.version_option(package_name="flybridge", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Bring Feishu/Lark events to a pool of Celery workers: none lost, none handled twice.

    New here? Try `flybridge demo`, then `flybridge dev`. Settings come from options, FLYBRIDGE_*
    variables, ./.env and defaults, in this order.
    """
    ctx.obj = options


@cli.command()
@click.option("--domain", help="feishu, lark, or a base URL.")
@click.option("--redis-url", help="Where the streams are.")
@click.option("--ops-port", type=int, help="Health, status, metrics by HTTP; 0: none.")
@click.pass_obj
def run(common: dict[str, Any], /, **flags: Any) -> None:
    """Run one bridge: a standby until it holds the lease, then the leader.

    Start two or more: one leads, and another takes over when it ends.
    """
    from flybridge.bridge.cli.run import run_bridge
    from flybridge.bridge.config.settings import BridgeSettings

    settings = begin(BridgeSettings, common, flags)
    sys.exit(asyncio.run(run_bridge(settings)))


@cli.command()
@click.option("--queues", help="Domains to work for, like im,contact.  [default: all]")
@click.option("--concurrency", type=click.IntRange(min=1), help="Handlers at once.")
@click.option(
    "--pool",
    type=click.Choice(["prefork", "threads", "solo", "asyncio"]),
    default="prefork",
    show_default=True,
)
@click.option("--handlers", help="Modules with handlers, like myapp.feishu,myapp.audit.")
@click.option("--group", help="Consumer group; each group gets every event.")
@click.option(
    "--from",
    "start_from",
    metavar="now|all|TIME",
    help="Where a group that is new begins; 2h (ago), or RFC 3339.  "
    "[default: with what no other group reads; else now]",
)
@click.option("--redis-url", help="Where the streams are.")
@click.option("--name", help="Node name for Celery's control commands.")
@click.pass_obj
def worker(
    common: dict[str, Any],
    /,
    queues: str | None,
    concurrency: int | None,
    pool: str,
    name: str | None,
    **flags: Any,
) -> None:
    """Run one worker: it reads the streams and runs the handlers.

    Start as many as the load needs, on as many machines as you like.
    """
    from flybridge.bridge.config.settings import WorkerSettings
    from flybridge.handlers import errors
    from flybridge.workers.launch import run_worker

    settings = begin(WorkerSettings, common, flags)
    try:
        status = run_worker(
            settings,
            queues=queues,
            pool=pool,
            concurrency=concurrency,
            name=name,
        )
    except (errors.PluginBroken, errors.RegistrationInvalid) as error:
        raise PluginBroken(str(error)) from None
    sys.exit(status)


SECTIONS = {
    "Try it": (demo, dev, trigger, local, events),
    "Run it": (run, worker),
    "Operate it": (dlq, groups, handlers, replay),
}

for _command in (each for commands in SECTIONS.values() for each in commands):
    cli.add_command(_command)


def _tells_json(ctx: click.Context | None) -> bool:
    """Whether the last line of the process is to be JSON, as the log lines before it.

    Args:
        ctx: None: the command is not known.
    """
    from flybridge.bridge.telemetry.logs import format_to_be

    root = ctx.find_root() if ctx is not None else None
    chosen = root.params.get("log_format") if root is not None else None
    # Other commands answer people, unless these have said what they want.
    runs = root is not None and root.invoked_subcommand in ("run", "worker")
    if not (chosen or runs or "FLYBRIDGE_LOG_FORMAT" in os.environ):
        return False
    return (chosen or format_to_be()) == "json"


def main() -> None:
    """The console script.

    The working directory goes last on the path, so that it shadows nothing.
    """
    sys.path.append(str(Path.cwd()))
    try:
        status = cli(prog_name="flybridge", standalone_mode=False)
    except click.ClickException as error:
        if _tells_json(getattr(error, "ctx", None)):
            from flybridge.bridge.telemetry.logs import say_last

            say_last(error.format_message(), as_json=True)
        else:
            error.show()
        status = error.exit_code
    except click.Abort:
        from flybridge.bridge.telemetry.logs import say_last

        say_last("interrupted", as_json=_tells_json(None))
        status = 1
    sys.exit(status)
