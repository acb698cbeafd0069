"""The `flybridge` command. Each body imports what it needs itself, so that `--help` is instant.

Composition root: it may import all, and nobody imports it. Exit codes are those of `bridge.errors`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

import click

from bridge.cli_events import complete_types, events
from bridge.cli_groups import groups
from bridge.cli_handlers import handlers
from bridge.cli_letters import dlq, replay
from bridge.cli_settings import begin
from bridge.errors import BridgeError, PluginBroken

LOCAL_PORT = 8719
"""Where `flybridge dev` and `flybridge local` serve the local Feishu."""

PORT = click.IntRange(0, 65_535)
"""0: any free one."""

EXAMPLES = """\b
examples:
  # a bridge and a worker for the app in ./.env
  $ flybridge run
  $ flybridge worker --handlers myapp.feishu
\b
  # two threads-of-eight workers that share the load of two domains
  $ flybridge worker --queues im,contact --pool threads --concurrency 8
\b
  # thousands of awaiting handlers in one process
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
  # what Feishu does when an ack is lost: the same event three times
  $ flybridge trigger im.message.receive_v1 --same-id --count 3
\b
  # a handler more, in all running workers
  $ flybridge handlers register myapp.surveys
\b
  # what handlers gave up, and once more with the handler mended
  $ flybridge dlq list
  $ flybridge dlq replay --all --type im.message.receive_v1 --handlers myapp.feishu
"""


class Commands(click.Group):
    """A group whose commands may raise BridgeError: one line a problem, no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BridgeError as error:
            for line in str(error).splitlines():
                click.echo(f"flybridge: {line}", err=True)
            ctx.exit(error.exit_code)


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
    """Feishu/Lark events to a pool of Celery workers: none lost, none handled twice.

    Settings come from flags, FLYBRIDGE_* variables, ./.env and defaults, in this order.
    """
    ctx.obj = options


@cli.command()
@click.option("--domain", help="feishu, lark, or a base URL.")
@click.option("--redis-url", help="Where the streams are.")
@click.option("--ops-port", type=int, help="Health, status, metrics by HTTP; 0: none.")
@click.pass_obj
def run(common: dict[str, Any], /, **flags: Any) -> None:
    """Run one bridge: standby until it holds the lease, then leader.

    Start two or more; one leads, the others take over when it ends.
    """
    from bridge.run import run_bridge
    from bridge.settings import BridgeSettings

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
    """Run one worker: read the streams, run the handlers, each event once."""
    from bridge.settings import WorkerSettings
    from handlers import errors
    from workers.worker import run_worker

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
        raise PluginBroken(str(error)) from error
    sys.exit(status)


@cli.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Anyone who reaches it may push."
)
@click.option("--port", type=PORT, default=LOCAL_PORT, show_default=True, help="0: any free one.")
@click.option(
    "--text", "text_dialect", is_flag=True, help="Be a gateway that speaks JSON text instead."
)
@click.option("--text-token", default="", help="With --text: what a bridge must send to get in.")
@click.pass_obj
def local(
    common: dict[str, Any], /, host: str, port: int, text_dialect: bool, text_token: str
) -> None:
    """Serve a local Feishu on the real protocol, for trying things out and for tests.

    \b
    With --text it stands in for a gateway that is not Feishu, as for FLYBRIDGE_TEXT_DIALECT:
      $ flybridge local --text --text-token t-1
      $ FLYBRIDGE_DOMAIN=http://127.0.0.1:8719 FLYBRIDGE_TEXT_DIALECT=true \\
        FLYBRIDGE_TEXT_TOKEN=t-1 flybridge run
    """
    from bridge import logs
    from bridge.run import run_local

    if text_token and not text_dialect:
        raise click.UsageError("--text-token is for gateways that speak text; give --text, too.")
    logs.configure(common["log_level"] or "info", common["log_format"] or "console")
    serving = run_local(host, port, click.echo, text_dialect=text_dialect, text_token=text_token)
    asyncio.run(serving)


def _default_url() -> str:
    domain = os.environ.get("FLYBRIDGE_DOMAIN", "")
    return domain if domain.startswith("http://") else f"http://127.0.0.1:{LOCAL_PORT}"


@cli.command()
@click.argument("event_type", metavar="[TYPE]", required=False, shell_complete=complete_types)
@click.option(
    "--count", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Events to push."
)
@click.option("--same-id", is_flag=True, help="All under one event id, as when acks are lost.")
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="In the sample.")
@click.option("--file", type=click.File("rb"), help="An envelope of your own; - is stdin.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600),
    default=10.0,
    show_default=True,
    help="Seconds to wait for acks.",
)
@click.option("--url", default=_default_url, help=f"[default: http://127.0.0.1:{LOCAL_PORT}]")
def trigger(
    event_type: str | None,
    count: int,
    same_id: bool,
    assignments: tuple[str, ...],
    file: IO[bytes] | None,
    timeout: float,
    url: str,
) -> None:
    """Push a sample event of TYPE through the local Feishu and show its ack.

    The path in --set starts in the envelope's event object, e.g. message.content.
    """
    from bridge import trigger as steps
    from bridge.local.control import LocalControl

    if not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"give it like http://127.0.0.1:{LOCAL_PORT}", param_hint="--url")
    control = LocalControl(url)
    if file is not None and (event_type or assignments):
        raise click.UsageError("--file brings the whole envelope; leave TYPE and --set out")
    if file is not None:
        envelope = _read_envelope(file)
    else:
        envelope = _sample(control, event_type, assignments)
    push = steps.push_again if same_id else steps.push
    push(control, envelope, count=count, timeout=timeout, say=click.echo)


@cli.command()
@click.option(
    "--handlers",
    envvar="FLYBRIDGE_HANDLERS",
    default="handlers.builtin",
    show_default=True,
    help="Your modules.",
)
@click.option("--bridges", type=click.IntRange(1, 9), default=2, show_default=True)
@click.option(
    "--pool",
    type=click.Choice(["prefork", "threads", "solo", "asyncio"]),
    default="threads",
    show_default=True,
)
@click.option(
    "--port", type=PORT, default=LOCAL_PORT, show_default=True, help="Of the local Feishu; 0: any."
)
@click.pass_obj
def dev(common: dict[str, Any], /, **options: Any) -> None:
    """Run everything here: embedded Redis, local Feishu, bridges and a worker, until ^C."""
    from bridge import logs
    from bridge.run import run_dev

    level = common["log_level"] or "info"
    logs.configure(level, "console")
    asyncio.run(run_dev(**options, log_level=level, say=click.echo))


@cli.command()
def demo() -> None:
    """Show the main job from end to end: embedded Redis, local Feishu, two bridges, a worker.

    Ends with 1 if an event was lost or handled twice.
    """
    from bridge import logs
    from bridge.demo import demo as play

    logs.configure("error", "console")
    sys.exit(asyncio.run(play(click.echo)))


cli.add_command(events)
cli.add_command(dlq)
cli.add_command(groups)
cli.add_command(handlers)
cli.add_command(replay)


def main() -> None:
    """The console script. The working directory goes last on the path: it can shadow nothing."""
    sys.path.append(str(Path.cwd()))
    cli(prog_name="flybridge")


def _read_envelope(file: IO[bytes]) -> dict[str, Any]:
    try:
        envelope = json.load(file)
    except ValueError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint="--file") from None
    if not isinstance(envelope, dict):
        raise click.BadParameter("give a JSON object", param_hint="--file")
    return envelope


def _sample(control: Any, event_type: str | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    from bridge.trigger import overrides
    from handlers.samples import sample

    if event_type is None:
        raise click.UsageError("Give a TYPE, like im.message.receive_v1, or --file.")
    try:
        changed = overrides(assignments)
        sample(event_type, overrides=changed)
        return sample(event_type, app_id=control.status()["app_id"], overrides=changed)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
