"""The bounds of settings that other code shares."""

from __future__ import annotations

LONGEST_DELAY = 120.0
"""Seconds between two attempts to connect at most, whatever the server asks for."""

LONGEST_HEARTBEAT = 24.0
"""Seconds between two pings, whatever the server allows: with the answer's limit of 20 s a
half-open connection is noticed within 45 s, even if the loop is a second late."""

SMALLEST_BUFFER = 262_144
"""Bytes. A smaller buffer of the kernel lets large events in so slowly that Feishu's 3 s run out,
and any size of it keeps the kernel from choosing a better one."""
