"""The handlers of `perils` in a worker whose hard time limit comes soon after the soft one."""

from __future__ import annotations

import perils  # noqa: F401  # registers its handlers

from flybridge.workers.routes import routing

routing.INTERRUPT_GRACE = 0.5
