"""Discovery: one HTTP POST asks Feishu for the URL of one WebSocket.

Feishu: the URL alone authenticates the socket and is good for one connection. So discovery comes
before every connection, and neither the URL nor the app secret may reach a log or an error.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
import traceback
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from flybridge.bridge.config.app_secret import AppSecret
from flybridge.bridge.config.loopback import is_loopback
from flybridge.bridge.errors import (
    FeishuBusy,
    FeishuCrowded,
    FeishuError,
    FeishuRefused,
    FeishuUnavailable,
)
from flybridge.bridge.feishu.proxies import Proxy, proxy_for, through
from flybridge.bridge.process.daemon_thread import in_daemon_thread
from flybridge.bridge.protocol.server_config import ClientConfig
from flybridge.bridge.telemetry.redaction import Redactor

PATH = "/callback/ws/endpoint"
TIMEOUT = 10.0
"""Seconds for the whole discovery. The official SDK has none, and bots were deaf for days."""

MAX_ANSWER = 1024 * 1024
REFUSALS = frozenset({400, 401, 403})
"""HTTP statuses with which Feishu's gateway answers wrong credentials, but also troubles of its
own."""
MAX_REFUSALS = 3
"""Consecutive `REFUSALS` that are taken for wrong credentials."""

_CREDENTIALS = "check FLYBRIDGE_APP_ID and FLYBRIDGE_APP_SECRET against the developer console"
_DOMAIN = "set FLYBRIDGE_DOMAIN=lark for an app created at Lark, feishu for one created at Feishu"
_CONNECTIONS = "stop the app's other long-connection clients; a lost one is forgotten in minutes"
_CONSOLE = "check in the developer console that the app is published and enabled"

# Feishu: result codes of discovery.
_VERDICTS: dict[int, tuple[type[FeishuError], str]] = {
    # Feishu: the code with which its token API refuses a secret; not seen on this endpoint yet.
    10014: (FeishuRefused, f"the app secret is not valid; {_CREDENTIALS}"),
    1: (FeishuUnavailable, "the service is busy"),
    1000040343: (FeishuUnavailable, "internal error of the service"),
    1000040344: (FeishuRefused, f"credentials are missing; {_CREDENTIALS}"),
    1000040345: (FeishuBusy, f"refused for now; {_CONSOLE}"),
    1000040346: (FeishuRefused, f"the app id is not valid; {_CREDENTIALS}"),
    1000040350: (FeishuCrowded, f"too many connections; {_CONNECTIONS}"),
    1000040351: (FeishuRefused, f"wrong domain for this app; {_DOMAIN}"),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, once. Its repr has no secrets."""

    url: str
    service_id: int
    device_id: str
    """Feishu's name for this connection; for logs."""
    config: ClientConfig

    def __repr__(self) -> str:
        host = urlsplit(self.url).hostname
        return f"Endpoint(host={host!r}, device_id={self.device_id!r}, config={self.config!r})"


@dataclass(frozen=True, slots=True)
class Discovery:
    """Asks Feishu for an endpoint, with the current secret of one app."""

    base_url: str
    app_id: str
    secret: AppSecret
    timeout: float

    async def discover(self, *, config: ClientConfig | None, refusals: int) -> Endpoint:
        """`discover`, with the arguments that are known here."""
        where = (self.base_url, self.app_id, self.secret.current())
        return await discover(*where, timeout=self.timeout, config=config, refusals=refusals)

    def has_another_secret(self) -> bool:
        """Whether the next discovery would use another secret than the last one."""
        return self.secret.has_changed()


async def discover(
    base_url: str,
    app_id: str,
    app_secret: str,
    *,
    timeout: float = TIMEOUT,
    config: ClientConfig | None = None,
    refusals: int = 0,
) -> Endpoint:
    """Ask Feishu once, through the proxy of the environment if there is one.

    Args:
        base_url: like https://open.feishu.cn, without a path.
        timeout: seconds for everything.
        config: values that hold where Feishu's answer has none.
        refusals: how many errors with a code in `REFUSALS` came directly before this attempt.

    Raises:
        FeishuUnavailable: a passing fault, timeouts included; retry with backoff.
        FeishuCrowded: too many connections; retry slowly.
        FeishuBusy: an unknown code, or `MAX_REFUSALS` refusals in a row; retry slowly.
        FeishuRefused: the settings are wrong; the message says which.
    """
    request = _request(base_url, app_id, app_secret)
    proxy = proxy_for(base_url)
    try:
        async with asyncio.timeout(timeout):
            status, answer = await in_daemon_thread(
                lambda: _post(request, proxy, timeout), "flybridge-discovery"
            )
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = _without(app_secret, str(error) or "timed out")
        raise FeishuUnavailable(
            f"no answer from {base_url}{through(proxy)} ({reason}); check network, DNS and proxy"
        ) from None
    fields = _fields(answer)
    code = fields.get("code")
    known = isinstance(code, int) and code in _VERDICTS
    if status != 200 and not known:
        raise _http_refusal(status, refusals + 1)
    if not isinstance(code, int):
        raise FeishuUnavailable("the answer is no discovery's; check FLYBRIDGE_DOMAIN and proxy")
    if code != 0:
        raise refusal(code, _without(app_secret, str(fields.get("msg", ""))))
    return _endpoint(fields.get("data"), config or ClientConfig())


def refusal(code: int, said: str) -> FeishuError:
    """The error for one of Feishu's result codes; `said` is Feishu's own text."""
    kind, fact = _VERDICTS.get(code, (FeishuBusy, f"an unknown refusal; {_CONSOLE}"))
    return kind(f"Feishu answers {code} {said[:200]!r}: {fact}", code)


def _http_refusal(status: int, times: int) -> FeishuError:
    if status in REFUSALS and times >= MAX_REFUSALS:
        return FeishuBusy(f"HTTP {status}, {times} times in a row; {_CREDENTIALS}", status)
    return FeishuUnavailable(f"HTTP {status} instead of an endpoint; retry", status)


def _endpoint(data: object, config: ClientConfig) -> Endpoint:
    fields = data if isinstance(data, dict) else {}
    url = fields.get("URL")
    if not isinstance(url, str) or not url:
        raise FeishuUnavailable("Feishu's answer has no URL; retry")
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        local = parts.scheme == "ws" and is_loopback(parts)
        service_id = int(query["service_id"][0])
    except (ValueError, KeyError):
        raise FeishuUnavailable("Feishu's URL is unreadable or has no service_id; retry") from None
    if not parts.hostname or not (parts.scheme == "wss" or local):
        raise FeishuUnavailable("Feishu's URL is not wss, and secrets do not travel bare; retry")
    # Feishu: `service` of a frame is an int32.
    if not 0 <= service_id < 2**31:
        raise FeishuUnavailable("Feishu's service_id is out of range; retry")
    device_id = query.get("device_id", [""])[0]
    return Endpoint(url, service_id, device_id, config.updated(fields.get("ClientConfig")))


def _fields(answer: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(answer)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _without(secret: str, text: str) -> str:
    return Redactor([secret]).text(text)


# HTTP


def _request(base_url: str, app_id: str, app_secret: str) -> urllib.request.Request:
    if urlsplit(base_url).scheme not in ("http", "https"):
        raise FeishuRefused("the base URL is not http(s); set FLYBRIDGE_DOMAIN=feishu or lark")
    # Feishu: keys are capitalised exactly so.
    body = json.dumps({"AppID": app_id, "AppSecret": app_secret}).encode()
    headers = {"Content-Type": "application/json", "locale": "zh", "User-Agent": "flybridge"}
    return urllib.request.Request(base_url.rstrip("/") + PATH, body, headers)  # noqa: S310


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirects: Feishu sends none, and those of proxies lead to no endpoint."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def _post(
    request: urllib.request.Request, proxy: Proxy | None, timeout: float
) -> tuple[int, bytes]:
    deadline = time.monotonic() + timeout
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    if proxy is not None:
        _send_through(request, proxy)
    try:
        response = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        response = error
    except urllib.error.URLError as error:
        if isinstance(error.reason, OSError):
            # In Python 3.11.2 the frame that met a proxy's refusal holds the socket open.
            traceback.clear_frames(error.reason.__traceback__)
        raise
    with response:
        return response.status, _read(response, deadline)


def _send_through(request: urllib.request.Request, proxy: Proxy) -> None:
    """Use a tunnel for https; plain http is requested from the proxy itself."""
    if proxy.authorization:
        request.add_unredirected_header("Proxy-Authorization", proxy.authorization)
    request.set_proxy(f"{proxy.host}:{proxy.port}", "http")


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Read the body, with bounds in size and time."""
    answer = bytearray()
    while piece := response.read1(65536):
        answer += piece
        if len(answer) > MAX_ANSWER:
            raise ValueError(f"more than {MAX_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    return bytes(answer)
