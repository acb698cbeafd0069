from __future__ import annotations

import subprocess
import sys

from flybridge import handlers
from tests.project import ROOT


def test_the_public_names_are_these_and_no_others() -> None:
    assert handlers.__all__ == [
        "Batch",
        "BatchContext",
        "Context",
        "Event",
        "Handler",
        "Middleware",
        "Registry",
        "Reject",
        "Retry",
        "handles",
        "use",
    ]
    assert all(hasattr(handlers, name) for name in handlers.__all__)


def test_importing_handlers_loads_neither_redis_nor_celery_nor_the_network() -> None:
    program = (
        "import sys, flybridge.handlers.loading.plugins, flybridge.handlers.payloads\n"
        "import flybridge.handlers.builtin\n"
        "banned = {'redis', 'celery', 'websockets', 'redis_lock', 'opentelemetry.sdk'}\n"
        "banned |= {'flybridge.bridge'}\n"
        "print(sorted(banned & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
