"""Checks whether Feishu accepts this bridge's app id and secret.

Every discovery tells. A standby makes one at its start and from time to time, without opening a
connection, so that a wrong secret shows before the fleet depends on this bridge. A refused bridge
is not ready, and does not stand for the lease until it is accepted. A network that does not answer
is no refusal, and neither is Feishu's limit on connections.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from flybridge.bridge.errors import (
    FeishuBusy,
    FeishuCrowded,
    FeishuError,
    FeishuRefused,
    FeishuUnavailable,
)
from flybridge.bridge.feishu.backoff import Attempts, Pace
from flybridge.bridge.feishu.discovery import REFUSALS, Discovery, Endpoint
from flybridge.bridge.node.subscribers import Subscribers
from flybridge.bridge.ops.status import Board, Standing
from flybridge.bridge.protocol.server_config import ClientConfig
from flybridge.handlers.loggers import get_logger

JITTER = 0.2
"""Share by which the time between two checks varies, so that bridges do not ask in step."""

log = get_logger(__name__)


class Credentials:
    """Makes discoveries, and remembers whether Feishu accepts the credentials.

    Args:
        attempts: counts refusals as failed attempts to connect.
        board: written when the answer changes.
    """

    def __init__(
        self,
        discovery: Discovery,
        pace: Pace,
        attempts: Attempts,
        board: Board,
        lifecycle: Subscribers,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.standing = Standing.UNKNOWN
        self.trouble = ""
        """Why Feishu last refused, or could not be asked; empty when it accepted."""
        self.were_accepted = False
        """Whether Feishu has ever accepted them."""
        self.asked = asyncio.Event()
        """Set once Feishu has been asked, whatever the answer."""
        self._discovery, self._pace, self._attempts = discovery, pace, attempts
        self._board, self._lifecycle, self._clock = board, lifecycle, clock
        self._refusals = 0
        self._due = clock()
        self._unreached_since: float | None = None

    @property
    def are_refused(self) -> bool:
        """Whether this bridge must not lead, since another may be accepted."""
        return self.standing is Standing.REFUSED

    @property
    def unreached(self) -> float:
        """Seconds for which Feishu could not be asked; 0 when it answered last time."""
        since = self._unreached_since
        return self._clock() - since if since is not None else 0.0

    async def discover(self, config: ClientConfig | None = None) -> Endpoint:
        """Ask Feishu for an endpoint, and note what the answer says of the credentials.

        Raises:
            FeishuError: see `discover`.
        """
        try:
            endpoint = await self._discovery.discover(config=config, refusals=self._refusals)
        except FeishuError as error:
            self._refusals = self._refusals + 1 if error.code in REFUSALS else 0
            if isinstance(error, FeishuUnavailable) and error.code not in REFUSALS:
                self._missed(error)
            elif isinstance(error, FeishuCrowded):
                self._accepted()
            else:
                self.refuse(error)
            raise
        self._refusals = 0
        self._accepted()
        return endpoint

    def refuse(self, error: FeishuError) -> float:
        """Note a refusal; return the seconds until Feishu is asked again."""
        pause = self._pause_after(error)
        self._unreached_since = None
        self._ask_in(pause)
        self._change(Standing.REFUSED, str(error))
        return pause

    async def check(self) -> None:
        """Ask Feishu once, while this bridge does not lead.

        Raises:
            FeishuRefused: wrong configuration, and it was never accepted.
            ConnectionOver: the settings allow no further attempt.
        """
        known = self.trouble
        try:
            await self.discover()
        except FeishuCrowded:
            pass
        except FeishuError as error:
            if isinstance(error, FeishuRefused) and not self.were_accepted:
                raise
            self._failed(error, known)
            return
        except Exception:  # a mistake of ours must not end a bridge
            log.exception("credentials.unchecked")
            self._ask_in(self._pace.busy_retry)
            return
        if known:
            log.info("feishu.accepted")

    async def watch(self, leads: Callable[[], bool]) -> None:
        """Ask Feishu whenever it is time, unless this bridge leads: then its connection tells.

        Raises:
            FeishuRefused, ConnectionOver: see `check`.
        """
        while True:
            await asyncio.sleep(min(self._pace.look, max(0.0, self._due - self._clock())))
            if leads() and not self.are_refused:
                self._ask_in(self._pace.check)
            elif self._clock() >= self._due or (
                self.are_refused and self._discovery.has_another_secret()
            ):
                await self.check()
                self.asked.set()

    def _pause_after(self, error: FeishuError) -> float:
        if isinstance(error, FeishuUnavailable):  # one more refusal makes it certain
            return self._pace.look
        return self._pace.busy_retry if isinstance(error, FeishuBusy) else self._pace.refused_retry

    def _failed(self, error: FeishuError, known: str) -> None:
        """Log a failed check once per reason, since it is repeated for days."""
        if self.trouble != known:
            retry_in = round(self._due - self._clock())
            if self.are_refused:
                log.error("feishu.refused", reason=self.trouble, retry_in=retry_in)
            else:
                log.warning("feishu.unavailable", reason=self.trouble, retry_in=retry_in)
        if self.are_refused:
            self._lifecycle.errored(error)
            self._attempts.fail(error)

    def _accepted(self) -> None:
        self.were_accepted = True
        self._unreached_since = None
        self._ask_in(self._pace.check)
        self._change(Standing.ACCEPTED, "")

    def _missed(self, error: FeishuUnavailable) -> None:
        if self._unreached_since is None:
            self._unreached_since = self._clock()
        self._ask_in(self._pace.busy_retry)
        self._change(self.standing, self.trouble if self.are_refused else str(error))

    def _ask_in(self, pause: float) -> None:
        jitter = 1 + JITTER * (2 * random.random() - 1)  # noqa: S311
        self._due = self._clock() + pause * jitter

    def _change(self, standing: Standing, trouble: str) -> None:
        changed = (standing, trouble) != (self.standing, self.trouble)
        self.standing, self.trouble = standing, trouble
        if changed:
            self._board.change()
