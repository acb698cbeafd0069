"""Every error that Flybridge raises on purpose, and the exit code of each.

* :exc:`BridgeError`

  * :exc:`SettingsInvalid`: settings missing, wrong, or contradicting each other
  * :exc:`RedisUnfit`: Redis answers, but its version or policy would lose events
  * :exc:`RedisUnreachable`: Redis did not answer in time
  * :exc:`FeishuError`: discovery or the upgrade failed

    * :exc:`FeishuRefused`: for good; no retry will change that
    * :exc:`FeishuUnavailable`: a passing fault; retry with backoff
    * :exc:`FeishuBusy`: a refusal that may pass, or heals elsewhere; retry slowly

      * :exc:`FeishuCrowded`: the app has as many connections as it may

  * :exc:`ConnectionOver`: no connection any more, and the settings allow no further attempt
  * :exc:`NotConnected`: there is no connection to Feishu that this could use
  * :exc:`Misused`: a call that makes no sense now; a mistake of the calling program
  * :exc:`TaskFailed`: a task without which this is no bridge ended by a mistake of ours
  * :exc:`LeaseLost`: another process may lead from now on
  * :exc:`PluginBroken`: a handler module failed to import
  * :exc:`FrameInvalid`: bytes that are not a Feishu frame
  * :exc:`EnvelopeInvalid`: a payload that is not a Feishu envelope

A message states the fact and ends with what to do about it.
"""

from __future__ import annotations

from typing import Protocol

__all__ = [
    "EXIT_FEISHU",
    "EXIT_LEASE",
    "EXIT_LOST",
    "EXIT_PLUGIN",
    "EXIT_REDIS",
    "EXIT_SETTINGS",
    "EXIT_TASK",
    "OK",
    "BridgeError",
    "ConnectionOver",
    "EnvelopeInvalid",
    "FeishuBusy",
    "FeishuCrowded",
    "FeishuError",
    "FeishuRefused",
    "FeishuUnavailable",
    "FrameInvalid",
    "LeaseLost",
    "Misused",
    "NotConnected",
    "PluginBroken",
    "RedisUnfit",
    "RedisUnreachable",
    "SettingsInvalid",
    "TaskFailed",
]

OK = 0
EXIT_LOST = 1  # demo: an event was lost or doubled
EXIT_SETTINGS = 3
EXIT_REDIS = 4
EXIT_FEISHU = 5
EXIT_LEASE = 6  # the event loop was stuck past the renew deadline; restart the process
EXIT_PLUGIN = 7
EXIT_TASK = 8  # a mistake of ours; the log has the traceback


class ErrorListener(Protocol):
    """Is told of errors that a bridge survives."""

    def errored(self, error: Exception) -> None: ...


class BridgeError(Exception):
    """The base of all errors; `exit_code` is the exit code of the command line."""

    exit_code = 1


class SettingsInvalid(BridgeError):
    """One or more settings cannot be used; `problems` names each variable."""

    exit_code = EXIT_SETTINGS

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class RedisUnfit(BridgeError):
    """Redis answers, but would lose events."""

    exit_code = EXIT_REDIS


class RedisUnreachable(BridgeError):
    """Redis did not answer."""

    exit_code = EXIT_REDIS


class FeishuError(BridgeError):
    """Discovery or the upgrade failed.

    Args:
        reason: what Feishu said, and what to do about it.
        code: Feishu's result code or HTTP status; 0 when there was none.
    """

    exit_code = EXIT_FEISHU

    def __init__(self, reason: str, code: int = 0) -> None:
        self.code = code
        super().__init__(reason)


class FeishuRefused(FeishuError):
    """Feishu refused the connection, and no retry will change its mind."""


class FeishuUnavailable(FeishuError):
    """A passing fault of network or service; retry with backoff."""


class FeishuBusy(FeishuError):
    """A refusal that may pass, or be mended in the console; retry slowly."""


class FeishuCrowded(FeishuBusy):
    """The app has as many connections as it may. Every other bridge would be refused as well."""


class ConnectionOver(BridgeError):
    """There is no connection, and the settings allow no further attempt."""

    exit_code = EXIT_FEISHU


class NotConnected(BridgeError):
    """There is no connection to Feishu now, or this bridge is not the leader."""


class Misused(BridgeError):
    """A call that is not allowed at this moment, or with these settings."""


class TaskFailed(BridgeError):
    """A background task failed, by a mistake of ours."""

    exit_code = EXIT_TASK


class LeaseLost(BridgeError):
    """This process no longer leads."""

    exit_code = EXIT_LEASE


class PluginBroken(BridgeError):
    """A module with handlers failed to import."""

    exit_code = EXIT_PLUGIN


class FrameInvalid(BridgeError):
    """Bytes that are not a frame of the long connection."""


class EnvelopeInvalid(BridgeError):
    """A payload from which no event can be made.

    Args:
        reason: one word for counters and dead letters: `decode`, `schema`, `encrypted` or
            `too_large`.
        detail: the fact, for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)
