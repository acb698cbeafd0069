"""Tells which URLs stay on this machine, by their text."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult


def is_loopback(url: SplitResult) -> bool:
    """Whether the host is this machine: 127.0.0.0/8, ::1 or localhost."""
    host = url.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
