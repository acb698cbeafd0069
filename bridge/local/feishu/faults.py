"""The faults that tests and operators may inject into the local Feishu, by name.

Standing faults are armed for a number of times or until `clear`; the others happen at once to one
connection or to all.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from flybridge.bridge.local.feishu.connection import LocalConnection

AUTH_FAILED = 514
CONNECTION_LIMIT = 1_000_040_350


@dataclass(frozen=True, slots=True)
class Refusal:
    """How discovery or the upgrade is refused."""

    status: int
    """Of HTTP; also `Handshake-Status` for an upgrade."""
    code: int | None
    """Feishu's result code; `Handshake-Autherrcode` for an upgrade; None: not told."""
    msg: str


@dataclass(slots=True)
class _Armed:
    value: Any
    times: int | None


class Faults:
    """Scripted faults. Each public method but `take` is one, also by its name over HTTP.

    Args:
        connections: returns the live connections.
        config: the ClientConfig that the fault `config` changes.
    """

    def __init__(
        self,
        connections: Callable[[], Iterable[LocalConnection]],
        config: MutableMapping[str, int],
    ) -> None:
        self._connections = connections
        self._config = config
        self._armed: dict[str, _Armed] = {}

    def refuse_discovery(
        self,
        *,
        code: int = 1,
        status: int = 200,
        msg: str = "system busy",
        times: int | None = None,
    ) -> None:
        """Answer discovery with a result code, or with an HTTP status other than 200."""
        self._arm("refuse_discovery", Refusal(status, code, msg), times)

    def refuse_upgrade(
        self,
        *,
        status: int = AUTH_FAILED,
        autherrcode: int | None = None,
        msg: str = "refused",
        times: int | None = None,
    ) -> None:
        """Answer the upgrade with a status and `Handshake-*` headers."""
        self._arm("refuse_upgrade", Refusal(status, autherrcode, msg), times)

    def drop_pongs(self, *, times: int | None = None) -> None:
        """Leave pings unanswered."""
        self._arm("drop_pongs", True, times)

    def drop_acks(self, *, times: int | None = None) -> None:
        """Pretend that acks never arrived; the events are pushed again."""
        self._arm("drop_acks", True, times)

    def drop_fragment(self, *, times: int | None = 1) -> None:
        """Push in at least two fragments and keep the last one back."""
        self._arm("drop_fragment", True, times)

    def duplicate(self, *, copies: int = 2, times: int | None = None) -> None:
        """Push every event `copies` times at once."""
        self._arm("duplicate", copies, times)

    def delay(self, *, seconds: float, times: int | None = None) -> None:
        """Hold the frames of each push back for `seconds`; the ack timeout runs meanwhile."""
        self._arm("delay", seconds, times)

    def config(self, **values: int) -> None:
        """Change ClientConfig, e.g. `PingInterval=1`; clients learn it by their next pong."""
        self._config.update(values)

    def cut(self, *, connection: str | None = None) -> None:
        """Reset the TCP connection (of one connection id, or all)."""
        for each in self._chosen(connection):
            each.cut()

    def close(
        self, *, code: int = 1000, reason: str = "bye", connection: str | None = None
    ) -> None:
        """Close the WebSocket cleanly."""
        for each in self._chosen(connection):
            each.close(code, reason)

    def freeze(self, *, seconds: float = 30.0, connection: str | None = None) -> None:
        """Half-open: keep the socket, read and answer nothing; reset it after `seconds`."""
        for each in self._chosen(connection):
            each.freeze(seconds)

    def send_raw(self, *, data: bytes | str, connection: str | None = None) -> None:
        """Send bytes (over HTTP: base64) as one binary WebSocket message, as they are."""
        raw = base64.b64decode(data) if isinstance(data, str) else data
        for each in self._chosen(connection):
            each.send([raw])

    def clear(self) -> None:
        """Disarm every standing fault."""
        self._armed.clear()

    def take(self, name: str) -> Any:
        """The value of a standing fault, using it up by one; None if it is not armed."""
        armed = self._armed.get(name)
        if armed is None:
            return None
        if armed.times is not None:
            armed.times -= 1
            if armed.times <= 0:
                del self._armed[name]
        return armed.value

    def armed(self) -> dict[str, int | None]:
        """The standing faults and how many times they will still happen (None: until `clear`)."""
        return {name: armed.times for name, armed in self._armed.items()}

    def _arm(self, name: str, value: Any, times: int | None) -> None:
        if times is not None and times < 1:
            raise ValueError(f"times is {times}; use 1 or more, or leave it out for 'until clear'")
        self._armed[name] = _Armed(value, times)

    def _chosen(self, connection: str | None) -> list[LocalConnection]:
        return [each for each in self._connections() if connection in (None, each.id)]


NAMES = (
    "refuse_discovery", "refuse_upgrade", "drop_pongs", "drop_acks", "drop_fragment", "duplicate",
    "delay", "config", "cut", "close", "freeze", "send_raw", "clear",
)  # fmt: skip


def apply(faults: Faults, name: str, options: Mapping[str, Any]) -> None:
    """Inject a fault by name, as the remote control does.

    Raises:
        ValueError: unknown fault or option; the sentence names what there is.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, 3) or NAMES
        raise ValueError(f"There is no fault {name!r}; use one of: {', '.join(near)}")
    fault = getattr(faults, name)
    try:
        inspect.signature(fault).bind(**options)
    except TypeError as error:
        raise ValueError(f"{name}: {error}; it takes {inspect.signature(fault)}") from None
    fault(**options)
