"""Decides what becomes of failed handlers, and of attempts that ended without an outcome."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flybridge.handlers.base import Context
from flybridge.handlers.calling.tracebacks import users_frames
from flybridge.handlers.errors import PayloadInvalid, Reject, Retry
from flybridge.handlers.loggers import get_logger
from flybridge.handlers.policy import decide
from flybridge.handlers.registry import Registration
from flybridge.workers.claim.outcomes import MAX_ERROR, Failure, Outcome

if TYPE_CHECKING:
    from flybridge.workers.claim.claims import Run

log = get_logger(__name__)

CRASH_BACKOFF = 1.0
CRASH_BACKOFF_MAX = 60.0
"""Seconds; an attempt whose process died is tried again after 1, 2, 4, ... of them."""

CRASHED = 60.0
"""Seconds that a run without an outcome counts for in `Bundles`."""


@dataclass(frozen=True, slots=True)
class Again:
    """A handler that wants another attempt."""

    after: float
    """Seconds."""
    error: str


def judge(
    error: BaseException,
    registration: Registration,
    context: Context,
    age: float = 0.0,
    *,
    with_traceback: bool = True,
) -> Failure | Again:
    """Decide what follows a failed attempt, and log it.

    Args:
        age: seconds since the event was created.
        with_traceback: False where the log has it from another event of the same batch.

    Raises:
        BaseException: `error` itself, when it is meant for the process and not about the handler.
    """
    if is_order_to_exit(error):
        raise error
    # The jitter of up to a half spreads load; it guards nothing.
    spread = random.uniform(0.5, 1.0)  # noqa: S311
    decision = decide(error, registration, context.attempt, age, spread=spread)
    verdict: Failure | Again
    if decision.retry_after is None:
        verdict = Failure(registration.name, decision.given_up, describe(error))
    else:
        verdict = Again(decision.retry_after, describe(error))
    log.warning(
        "attempt.failed",
        event_id=context.event_id,
        event_type=context.event_type,
        handler=context.handler,
        attempt=context.attempt,
        error=type(error).__name__,
        **_consequence(verdict),
        **_cause(error, with_traceback=with_traceback),
    )
    return verdict


def describe(error: BaseException) -> str:
    """`Type: message` on one line, 1 KiB at most."""
    try:
        message = " ".join(str(error)[:MAX_ERROR].split())
    except Exception:  # a broken __str__ must not hide that the handler failed
        message = "its text cannot be made"
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    # Lone surrogates cannot be stored; and the limit is in bytes.
    return text.encode("utf-8", "replace")[:MAX_ERROR].decode("utf-8", "ignore")


def _consequence(verdict: Failure | Again) -> dict[str, Any]:
    if isinstance(verdict, Again):
        return {"retry_after": round(verdict.after, 3)}
    return {"given_up": verdict.reason}


def _cause(error: BaseException, *, with_traceback: bool) -> dict[str, Any]:
    """A reason where no line of code is to blame, else the traceback."""
    if isinstance(error, Reject | Retry):
        return {"reason": error.reason}
    if isinstance(error, PayloadInvalid):
        return {"reason": error.detail}
    if not with_traceback:
        return {}
    return {"exc_info": (type(error), error, users_frames(error))}


def is_order_to_exit(error: BaseException) -> bool:
    """Whether an exit is meant for the process, rather than raised by a handler's own code.

    Orders come by signals, and so in the main thread. Celery orders by subclasses of its own;
    billiard's handler of signal n exits with n - 256. Swallowing one would keep a process alive
    that was told to end.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if isinstance(error, KeyboardInterrupt):
        return True
    if not isinstance(error, SystemExit):
        return False
    by_signal = isinstance(error.code, int) and -256 < error.code < -191
    return type(error) is not SystemExit or by_signal


def crashed(run: Run, max_attempts: int, error: str, *, alone: bool = True) -> Outcome:
    """What becomes of an attempt that ended without an outcome: tried again later, or given up.

    Args:
        alone: no other event was in the same request. Otherwise one of those may be guilty, so this
            one gets another attempt, alone (see `quarantine.is_suspect`).
    """
    if alone and run.attempt >= max_attempts:
        return Outcome(failed=(Failure("", "crash_loop", error),))
    return Outcome(retry_after=crash_delay(run.attempt), error=error, crashed=True)


def crash_delay(attempt: int) -> float:
    """Seconds until the next attempt after one whose process died."""
    longest: float = min(CRASH_BACKOFF_MAX, CRASH_BACKOFF * 2.0 ** min(attempt - 1, 64))
    return longest * random.uniform(0.5, 1)  # noqa: S311  # spreads load, hides nothing


def overdue(seconds: float) -> str:
    """The error of an attempt that the pool has stopped."""
    return f"TimeLimitExceeded: no outcome within {seconds:g} s"
