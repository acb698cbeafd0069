"""`flybridge local`, `trigger`, `dev` and `demo`: they need neither a Feishu app nor a Redis."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import IO, Any

import click

from flybridge.bridge.cli.events import complete_types

LOCAL_PORT = 8719
"""The port of the local Feishu of `flybridge dev` and `flybridge local`."""

PORT = click.IntRange(0, 65_535)
"""0: any free one."""


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Who reaches it may push events."
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
    """Serve a local Feishu on the real protocol, to try things out.

    \b
    With --text it stands in for a gateway that is not Feishu, as for FLYBRIDGE_TEXT_DIALECT:
      $ flybridge local --text --text-token t-1
      $ FLYBRIDGE_DOMAIN=http://127.0.0.1:8719 FLYBRIDGE_TEXT_DIALECT=true \\
        FLYBRIDGE_TEXT_TOKEN=t-1 flybridge run
    """
    from flybridge.bridge.cli.run import run_local
    from flybridge.bridge.telemetry import logs

    if text_token and not text_dialect:
        raise click.UsageError("--text-token is for gateways that speak text; give --text, too.")
    logs.configure(common["log_level"] or "info", common["log_format"] or "console")
    serving = run_local(host, port, click.echo, text_dialect=text_dialect, text_token=text_token)
    asyncio.run(serving)


def _default_url() -> str:
    domain = _told("DOMAIN", click.get_current_context().find_object(dict))
    return domain if domain.startswith("http://") else f"http://127.0.0.1:{LOCAL_PORT}"


@click.command()
@click.argument("event_type", metavar="[TYPE]", required=False, shell_complete=complete_types)
@click.option(
    "--count", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Events to push."
)
@click.option("--same-id", is_flag=True, help="All under one event id, as when acks are lost.")
@click.option(
    "--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Change the sample."
)
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
    """Push a sample event through the local Feishu and show its ack.

    The path in --set starts in the envelope's event object, e.g. message.content.
    """
    from flybridge.bridge.local import trigger as steps
    from flybridge.bridge.local.feishu.control import LocalControl

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


@click.command()
@click.option(
    "--handlers",
    help="Your modules.  [default: FLYBRIDGE_HANDLERS, also in ./.env; else "
    "flybridge.handlers.builtin]",
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
def dev(common: dict[str, Any], /, handlers: str | None, **options: Any) -> None:
    """Run the whole chain here with your handlers, until ^C.

    Starts an embedded Redis, a local Feishu, bridges and a worker; `flybridge trigger` in a second
    terminal pushes an event. Of ./.env and the environment only FLYBRIDGE_HANDLERS counts.
    """
    from flybridge.bridge.cli.run import run_dev
    from flybridge.bridge.telemetry import logs

    modules = handlers or _told("HANDLERS", common) or "flybridge.handlers.builtin"
    level = common["log_level"] or "info"
    logs.configure(level, "console")
    asyncio.run(run_dev(**options, handlers=modules, log_level=level, say=click.echo))


def _told(name: str, common: dict[str, Any] | None) -> str:
    """The value of a setting in the environment or `.env`; empty if neither has it."""
    from flybridge.bridge.config import environment

    layers = environment.layers((common or {}).get("env_file"))
    given = [each.value for layer in layers for each in layer if each.name == name]
    return given[-1] if given else ""


@click.command()
def demo() -> None:
    """Show the main job from end to end, and count what was lost.

    Starts an embedded Redis, a local Feishu, two bridges and a worker, and kills the leader while
    events flow. Ends with 1 if an event was lost or handled twice.
    """
    from flybridge.bridge.cli.run import run_demo
    from flybridge.bridge.telemetry import logs

    logs.configure("error", "console")
    sys.exit(asyncio.run(run_demo(click.echo)))


def _read_envelope(file: IO[bytes]) -> dict[str, Any]:
    try:
        envelope = json.load(file)
    except ValueError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint="--file") from None
    if not isinstance(envelope, dict):
        raise click.BadParameter("give a JSON object", param_hint="--file")
    return envelope


def _sample(control: Any, event_type: str | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    from flybridge.bridge.local.trigger import overrides
    from flybridge.handlers.samples import sample

    if event_type is None:
        raise click.UsageError("Give a TYPE, like im.message.receive_v1, or --file.")
    try:
        changed = overrides(assignments)
        sample(event_type, overrides=changed)
        return sample(event_type, app_id=control.status()["app_id"], overrides=changed)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
