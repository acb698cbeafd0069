"""Whether to connect again after an end or a failure, as the settings have it. Not when: see
`backoff`."""

from __future__ import annotations

from bridge.errors import ConnectionOver


class Attempts:
    """Counts attempts that failed in a row, over all leaderships of a process.

    Args:
        auto_reconnect: False: one connection, and no attempt after a failed one.
        most: failed attempts in a row after which there is no other; 0: no limit.
    """

    def __init__(self, *, auto_reconnect: bool = True, most: int = 0) -> None:
        self.failures = 0
        """Attempts that failed, ever."""
        self._failed = 0
        self._auto_reconnect = auto_reconnect
        self._most = most

    def succeeded(self) -> None:
        """A connection has lasted: those that failed before it do not count any more."""
        self._failed = 0

    def ended(self, reason: str, *, brief: bool) -> None:
        """A connection has ended without our will.

        Args:
            brief: it had hardly begun, so it counts as an attempt that failed.

        Raises:
            ConnectionOver: there is to be no other.
        """
        if not self._auto_reconnect:
            raise ConnectionOver(f"The connection to Feishu has ended ({reason}); {_OFF}")
        if brief:
            self._count(f"a connection that ended at once ({reason})")

    def fail(self, error: Exception) -> None:
        """An attempt failed.

        Raises:
            ConnectionOver: there is to be no other.
        """
        if not self._auto_reconnect:
            raise ConnectionOver(f"No connection to Feishu ({error}); {_OFF}") from error
        self._count(str(error), error)

    def _count(self, what: str, cause: Exception | None = None) -> None:
        self.failures += 1
        self._failed += 1
        if 0 < self._most <= self._failed:
            raise ConnectionOver(
                f"{self._failed} attempts to connect to Feishu failed in a row, the last with: "
                f"{what}; start the bridge again when that is put right, or allow more by "
                "FLYBRIDGE_MAX_RECONNECT_ATTEMPTS (0: without end)"
            ) from cause


_OFF = (
    "FLYBRIDGE_AUTO_RECONNECT is false, so there is no other attempt; start the bridge again, or "
    "set it to true"
)
