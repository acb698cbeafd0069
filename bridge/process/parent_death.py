"""Ends a child process when its parent dies. Without `prctl` (all but Linux) it does nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded here and not in the child: between fork and exec nothing may be imported.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(sent: signal.Signals = signal.SIGKILL, *, parent: int = 0) -> None:
    """Have the kernel send `sent` to this process when its parent ends.

    Call it in the child, or give it as `preexec_fn` to `subprocess.Popen`. The kernel watches the
    *thread* that forked: do not fork from a thread that ends before the child should.

    Args:
        parent: the parent's pid, taken before the fork; if it is no longer the parent, this process
            ends at once. 0: do not check.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0)
    if parent and os.getppid() != parent:
        os.kill(os.getpid(), sent)
