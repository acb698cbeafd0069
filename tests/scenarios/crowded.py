"""More `def` handlers at work than a pool of threads has by custom, and some that never end.

Ten handlers of one type wait until all of 110 events are at work; they write down that they were.
"""

from __future__ import annotations

import threading

from acting import note

from flybridge.handlers import Context, Event, handles
from flybridge.workers.routes import routing

CROWD = "vc.meeting.meeting_started_v1"
HANGING = "im.chat.disbanded_v1"
EVENTS, HANDLERS = 110, 10

routing.INTERRUPT_GRACE = 0.5

_everyone = threading.Barrier(EVENTS * HANDLERS)


def gather(event: Event, context: Context) -> None:
    _everyone.wait(10)
    note("finished", context.handler, event, context)


for _number in range(HANDLERS):
    handles(CROWD, name=f"gather-{_number}", timeout=15)(gather)


@handles(HANGING, max_attempts=1, timeout=0.1)
def hang(event: Event, context: Context) -> None:
    note("started", "hang", event, context)
    threading.Event().wait()
