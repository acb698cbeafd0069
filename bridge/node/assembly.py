"""Builds a bridge from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

from flybridge.bridge.config.app_secret import AppSecret
from flybridge.bridge.config.lease_timing import Timing
from flybridge.bridge.config.settings import BridgeSettings
from flybridge.bridge.feishu import proxies
from flybridge.bridge.feishu.backoff import Attempts, Backoff, Pace
from flybridge.bridge.feishu.connection import connect
from flybridge.bridge.feishu.discovery import Discovery
from flybridge.bridge.leadership.lease import new_identity
from flybridge.bridge.node.reconnector import Connect
from flybridge.bridge.node.subscribers import Subscribers
from flybridge.bridge.node.supervisor import Supervisor
from flybridge.bridge.ops import http
from flybridge.bridge.ops.web import listen, serving_strangers
from flybridge.bridge.protocol.heartbeat import Heartbeat
from flybridge.bridge.protocol.text_conversation import TextDialect
from flybridge.bridge.publishing.admission import Admission
from flybridge.bridge.publishing.durability import Durability, fit
from flybridge.bridge.store.client import address, async_client, check_server
from flybridge.bridge.store.streams import Keys
from flybridge.bridge.telemetry import redaction
from flybridge.handlers.loggers import get_logger

QUICK = 15.0
"""Seconds. If discovery or upgrade may take longer, a leader's patience grows in proportion."""

log = get_logger(__name__)


def heartbeat(settings: BridgeSettings) -> Heartbeat:
    """Statistics for a bridge that has not pinged yet."""
    return Heartbeat(longest=settings.ping_interval, silence=settings.pong_alarm)


@asynccontextmanager
async def assembled(
    settings: BridgeSettings,
    *,
    heartbeat: Heartbeat,
    lifecycle: Subscribers,
    on_asked: Callable[[], None],
    traced: bool,
) -> AsyncIterator[Supervisor]:
    """A bridge that is ready to run. Its Redis was checked, and its ops port is served.

    Args:
        on_asked: called after each lease call of a standby.
        traced: whether spans are made.

    Raises:
        SettingsInvalid: the proxy is not supported.
        RedisUnreachable, RedisUnfit: Redis cannot be used.
        PortTaken: the ops port cannot be had.
    """
    redaction.keep_secret(settings.secrets)
    _tell_of_proxies(settings)
    async with AsyncExitStack() as stack:
        redis = async_client(settings.redis_url, app_id=settings.app_id)
        stack.push_async_callback(redis.aclose)
        await check_server(redis, settings.eviction)
        durability = await fit(Durability.parse(settings.durability), redis)
        identity = new_identity()
        secret = AppSecret(settings.app_secret.get_secret_value(), settings.app_secret_file)
        discovery = Discovery(
            settings.base_url, settings.app_id, secret, settings.connection_timeout
        )
        supervisor = Supervisor(
            redis, Keys(settings.app_id), identity, discovery, _connect(settings),
            timing=_timing(settings), pace=_pace(settings), on_asked=on_asked,
            durability=durability, retention=settings.retention, heartbeat=heartbeat,
            memory_threshold=settings.memory_threshold, attempts=_attempts(settings),
            backoff=Backoff(first=settings.reconnect_delay), admission=_admission(settings),
            dead_letters=settings.dead_letters,
            lifecycle=lifecycle, traced=traced,
        )  # fmt: skip
        if settings.ops_port:
            await _serve_ops(stack, settings, supervisor)
        log.info(
            "bridge.started",
            app_id=settings.app_id,
            identity=identity,
            redis=address(redis),
            durability=durability.profile,
        )
        yield supervisor


def _tell_of_proxies(settings: BridgeSettings) -> None:
    if (proxy := proxies.proxy_for(settings.base_url)) is not None:
        log.info("proxy.used", proxy=str(proxy))
    if names := proxies.ignored():
        cure = "set HTTPS_PROXY: both connections to Feishu go through that one"
        log.warning("proxy.ignored", variables=names, cure=cure)


def _timing(settings: BridgeSettings) -> Timing:
    return Timing(settings.lease_duration, settings.renew_deadline, settings.retry_period)


def _pace(settings: BridgeSettings) -> Pace:
    """With a patience of two attempts, if the operator allows long ones."""
    pace = Pace()
    return replace(pace, patience=pace.patience * max(1.0, settings.connection_timeout / QUICK))


def _connect(settings: BridgeSettings) -> Connect:
    return partial(
        connect,
        open_timeout=settings.connection_timeout,
        text_dialect=_dialect(settings),
        receive_buffer_size=settings.receive_buffer_size,
    )


def _attempts(settings: BridgeSettings) -> Attempts:
    auto = settings.auto_reconnect
    return Attempts(auto_reconnect=auto, most=settings.max_reconnect_attempts)


def _admission(settings: BridgeSettings) -> Admission:
    return Admission(settings.message_queue_capacity, queue=settings.message_queue)


def _dialect(settings: BridgeSettings) -> TextDialect | None:
    if not settings.text_dialect:
        return None
    token = settings.text_token.get_secret_value()
    return TextDialect(token, settings.app_id, settings.text_event_url)


async def _serve_ops(
    stack: AsyncExitStack, settings: BridgeSettings, supervisor: Supervisor
) -> None:
    where = settings.ops_host, settings.ops_port
    app = http.application(
        supervisor.status,
        lease_duration=settings.lease_duration,
        patience=supervisor.pace.patience,
    )
    cure = "set FLYBRIDGE_OPS_PORT to another port, or FLYBRIDGE_OPS_HOST to an address of ours"
    port = await listen(stack, serving_strangers(app, *where), *where, cure=cure)
    log.info("ops.started", host=settings.ops_host, port=port)
