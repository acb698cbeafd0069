"""Keeps the routes of an inline worker in step with a registry that changes while events flow.

Celery's workers change by commands instead, see `changes.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.loggers import get_logger
from flybridge.workers.routes.routing import Routing

if TYPE_CHECKING:
    from flybridge.handlers.registry import Registry

log = get_logger(__name__)


class LiveRoutes:
    """The routes of one registry, brought up to date by `look`.

    Raises:
        RegistrationInvalid: see `Routing.of`.
    """

    def __init__(self, registry: Registry, *, parallel: bool) -> None:
        self._registry = registry
        self._parallel = parallel
        # Before the routes are made: what changes meanwhile is seen at the first look.
        self._seen = registry.revision
        self.routing = Routing.of(registry, parallel=parallel)

    def look(self) -> None:
        """Route as the registry says now; where that cannot be, as it said before."""
        revision = self._registry.revision
        if revision == self._seen:
            return
        self._seen = revision
        try:
            self.routing.adopt(Routing.of(self._registry, parallel=self._parallel))
        except RegistrationInvalid as error:
            log.error("routes.kept", reason=str(error), hint="queues, limits and retries stay as "
                      "they were until the handlers are right")  # fmt: skip
