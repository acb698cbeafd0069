"""Finds out what speaks on the port where Redis should be.

redis-py would wait for an answer that never comes, once for each try. No credentials are sent, and
no certificate is verified.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Literal

from flybridge.bridge.errors import RedisUnreachable

ANSWER_TIMEOUT = 3.0
"""Seconds for the first byte of an answer in the URL's protocol."""

OTHER_ANSWER_TIMEOUT = 1.0
"""Seconds for the first byte of an answer in the other protocol."""

Spoken = Literal["plain", "tls", "unknown", "cut", "nothing"]
"""`unknown`: an answer that Redis does not give. `cut`: the connection ended before an answer.
`nothing`: no answer in time."""


def refuse_mistaken(host: str, port: int, *, tls: bool, where: str, variable: str) -> None:
    """Return when the port speaks as it should, or when nobody listens.

    Args:
        tls: whether it should speak TLS.
        where: how errors name the server.
        variable: the variable that holds its URL.

    Raises:
        RedisUnreachable: it speaks otherwise, or not at all; with the likely mistake.
    """
    try:
        spoken = _spoken(host, port, tls=tls)
    except OSError:
        return
    scheme, other = ("rediss", "redis") if tls else ("redis", "rediss")
    if spoken == ("tls" if tls else "plain"):
        return
    if spoken in ("cut", "nothing"):
        raise RedisUnreachable(
            f"What listens at {where} accepts connections and does not answer; check that it is "
            f"Redis and well, and host and port in {variable}."
        )
    if spoken == "unknown":
        raise RedisUnreachable(
            f"What answers at {where} is no Redis; check host and port in {variable}."
        )
    speaks = "speaks TLS" if spoken == "tls" else "does not speak TLS"
    raise RedisUnreachable(
        f"What listens at {where} {speaks}; give {other}:// instead of {scheme}:// in {variable}, "
        "or the other port."
    )


def _spoken(host: str, port: int, *, tls: bool) -> Spoken:
    """What the port speaks.

    Raises:
        OSError: nobody listens.
    """
    first, second = (_by_tls, _by_plain) if tls else (_by_plain, _by_tls)
    found = first(host, port, ANSWER_TIMEOUT)
    if found == "cut":  # once may be a network failure
        found = first(host, port, ANSWER_TIMEOUT)
    if found in ("cut", "nothing"):
        with suppress(OSError):  # it has just listened
            found = second(host, port, OTHER_ANSWER_TIMEOUT)
    return found


def _by_plain(host: str, port: int, patience: float) -> Spoken:
    with socket.create_connection((host, port), patience) as connection:
        try:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            answer = connection.recv(16)
        except TimeoutError:
            return "nothing"
        except OSError:
            return "cut"
    if answer[:1] in (b"+", b"-"):
        return "plain"
    if answer[:2] == b"\x15\x03":  # an alert
        return "tls"
    return "unknown" if answer else "cut"


def _by_tls(host: str, port: int, patience: float) -> Spoken:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, port), patience) as connection:
        try:
            context.wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLError as error:
            # Of another kind than an alert, it is no TLS that came back.
            return "tls" if "ALERT" in str(error) else "nothing"
        except TimeoutError:
            return "nothing"
        except OSError:
            return "cut"
    return "tls"
