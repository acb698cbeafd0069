"""What is told of events that nobody handles."""

from __future__ import annotations

from structlog.testing import capture_logs

from flybridge.workers.group.unhandled import LOG_PERIOD, Burials


def test_burials_are_told_of_at_once_and_then_counted_for_a_minute():
    now = [0.0]
    burials = Burials("dead", lambda: now[0])
    with capture_logs() as lines:
        burials.tell(0)
        assert lines == []
        for displaced in (0, 1, 3):
            burials.add("a")
            burials.tell(displaced)
        burials.add("b")
        now[0] = LOG_PERIOD
        burials.tell(3)
        now[0] = 2 * LOG_PERIOD
        burials.tell(3)
    told = [(line["count"], line["types"], line["displaced"]) for line in lines]
    assert told == [(1, "a", 0), (3, "a b", 3)]
