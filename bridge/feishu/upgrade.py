"""Opens a WebSocket to Feishu, or says why that failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidProxyStatus, InvalidStatus, WebSocketException

from flybridge.bridge.errors import FeishuError, FeishuRefused, FeishuUnavailable, SettingsInvalid
from flybridge.bridge.feishu.discovery import refusal
from flybridge.bridge.feishu.proxies import Proxy, proxy_for, through
from flybridge.bridge.protocol import frames

OPEN_TIMEOUT = 10.0
"""Seconds for DNS, TCP, proxy, TLS and upgrade together."""

# At debug level the library logs the upgrade request, and the URL in it is a secret.
_library_log = logging.getLogger("flybridge.bridge.feishu.connection.websockets")
_library_log.setLevel(logging.WARNING)


async def open_websocket(
    url: str, *, open_timeout: float = OPEN_TIMEOUT, close_timeout: float, write_limit: int
) -> ClientConnection:
    """A WebSocket that sends no pings by itself, through the environment's proxy if there is one.

    Args:
        open_timeout: seconds for everything up to the upgrade.
        close_timeout: seconds that closing may take.
        write_limit: unsent bytes above which `drain` waits.

    Raises:
        FeishuUnavailable: a passing fault; discover again and retry with backoff.
        FeishuCrowded: the connection limit; retry slowly.
        FeishuRefused: Feishu forbids the connection.
    """
    proxy = _proxy(url)
    try:
        return await connect(
            url,
            proxy=proxy.url if proxy is not None else None,
            compression=None,
            user_agent_header="flybridge",
            open_timeout=open_timeout,
            ping_interval=None,  # our own pings prove more: that Feishu's service answers
            close_timeout=close_timeout,
            max_size=frames.MAX_FRAME,
            max_queue=None,  # the transport is paused instead, see `bridge/feishu/connection.py`
            write_limit=write_limit,
            logger=_library_log,
        )
    except InvalidStatus as error:
        raise upgrade_refusal(error.response.status_code, error.response.headers) from None
    except InvalidProxyStatus as error:
        reason = f"the proxy answers {error.response.status_code}"
    except OSError as error:
        reason = str(error) or "timed out"
    except (WebSocketException, ImportError, ValueError) as error:  # ValueError: no name of a host
        # The text of these may hold the URL or a proxy's password.
        reason = type(error).__name__
    raise FeishuUnavailable(
        f"no WebSocket{through(proxy)} ({reason}); check network, DNS, proxy and TLS"
    )


def _proxy(url: str) -> Proxy | None:
    try:
        return proxy_for(url)
    except SettingsInvalid as error:  # at the start NO_PROXY had covered Feishu's other host
        raise FeishuRefused(str(error)) from None


def upgrade_refusal(status: int, headers: Mapping[str, str]) -> FeishuError:
    """The error for an upgrade that Feishu answered with an HTTP `status`.

    Feishu: `Handshake-Status` 514 is failed authentication, of which `Handshake-Autherrcode`
    1000040350 is the connection limit and the rest a stale ticket; 403 is final.
    """
    handshake = _number(headers, "Handshake-Status")
    code = _number(headers, "Handshake-Autherrcode")
    said = ascii(headers.get("Handshake-Msg", ""))[:200]
    if handshake == 514 and code == 1000040350:
        return refusal(code, said)
    if handshake == 403:
        return FeishuRefused(
            f"Feishu forbids the connection {said}; check in the developer console that the app is "
            "enabled and its subscription mode is the long connection",
            403,
        )
    known = handshake or status
    return FeishuUnavailable(f"the upgrade was refused with {known} {said}; retry", code or known)


def _number(headers: Mapping[str, str], name: str) -> int:
    try:
        return int(headers.get(name, ""))
    except (ValueError, LookupError):  # LookupError: the header came twice
        return 0
