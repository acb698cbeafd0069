"""What importing handlers costs."""

from __future__ import annotations

import subprocess
import sys

from tests.project import ROOT


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
