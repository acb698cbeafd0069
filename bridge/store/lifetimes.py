"""How long keys in Redis live. The rule: what guards something lives as long as what it guards.

| key | guards | lives |
|---|---|---|
| published, buried marker | Feishu's next push, 7.1 h after the first at most | `mark_ttl` |
| state: done, dead | the entry, if its group is made anew and reads it once more | `mark_ttl` |
| state: retry, later attempts | what is on record of a pending entry | `UNSETTLED`, and its wait |
| state: first attempt | that it was begun, for who takes it over | `mark_ttl`, renewed |
| state of a replayed event | successes that are on record nowhere else | until a worker claims it |
| business key | the same of its holder, and then the handler's success | as the holder's state |
| line | the order of pending entries | `UNSETTLED` since anyone looked |
| retries, dead letters, joined | entries and letters that wait for us | until those have gone |
| lock | one attempt | the event lease, renewed |
| answer of a replay or purge | the repetition of a call whose reply was lost, within 10 s | 60 s |

A stream may hold entries older than any mark: some other group lags, or an entry waits. So a group
made anew starts no further back than the retention, which every mark outlives; see
`workers/intake/group.lua`. With no worker there for as long as that, a first attempt that died with
its worker is forgotten (and was no success), after `UNSETTLED` all that is on record.

Redis ends keys by its own clock: one that goes ahead ends them early by as much, for good.
"""

from __future__ import annotations

from math import ceil

MARKER_TTL = 86_400
"""Seconds a published or done mark is kept at least; Feishu's last retry comes after 7.1 hours."""

MARK_MARGIN = 3_600
"""Seconds that marks outlive the entries that a group made anew is given again."""

UNSETTLED = 30 * 86_400
"""Seconds for which nothing of a pending entry is forgotten, though no worker looks at it; longer
than any wait for a retry."""


def mark_ttl(retention: float) -> int:
    """Seconds that a published or done mark is kept, given the retention of the streams."""
    return max(MARKER_TTL, ceil(retention) + MARK_MARGIN)
