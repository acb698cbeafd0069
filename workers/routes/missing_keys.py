"""Warns of events that lack the value that `ordered_by` or `dedup_by` points to, once a type."""

from __future__ import annotations

from flybridge.handlers.loggers import get_logger

log = get_logger(__name__)

MAX_TOLD = 1024
"""Types that are remembered: a sender can make up types without end."""


class MissingKeys:
    """Warns once for each option, path and type; callable from any thread."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str, str]] = set()

    def tell(self, option: str, path: str, event_type: str) -> None:
        """Log `key.missing`, unless that was done for the same option, path and type."""
        missing = (option, path, event_type)
        if missing in self._told or len(self._told) >= MAX_TOLD:
            return
        self._told.add(missing)
        effect = "ordered" if option == "ordered_by" else "compared with others"
        log.warning(
            "key.missing",
            option=option,
            path=path,
            event_type=event_type,
            hint=f"an event holds no text or whole number there, so it is not {effect}; see "
            "whether the path is right. Later events of this type are not logged",
        )
