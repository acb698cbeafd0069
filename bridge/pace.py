"""How long what may take on the way to Feishu."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    patience: float = 60.0
    """A leader without a connection for so long lets another host try."""
    busy_retry: float = 30.0
    """Until Feishu is asked again after a refusal that may pass, and by a standby after a network
    that did not answer."""
    refused_retry: float = 300.0
    """Until Feishu is asked again after a refusal of the configuration."""
    steady: float = 10.0
    """A connection that lived so long was a success: backoff and count of failures start anew."""
    check: float = 300.0
    """Between two questions of a standby whether Feishu still accepts it."""
    look: float = 5.0
    """Between two looks whether a refused bridge has got another secret."""
