"""The bounds of settings that other code shares."""

from __future__ import annotations

LONGEST_DELAY = 120.0
"""Seconds between two attempts to connect at most, whatever the server asks for."""

LONGEST_HEARTBEAT = 24.0
"""Seconds between two pings at most, whatever the server allows. With the 20 s for an answer, a
half-open connection is noticed within 45 s, even if the loop is a second late."""

SMALLEST_BUFFER = 262_144
"""Bytes. A smaller buffer of the kernel lets large events in too slowly for Feishu's 3 s, and any
fixed size keeps the kernel from choosing a better one."""
