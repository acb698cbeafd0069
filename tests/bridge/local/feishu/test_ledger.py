from __future__ import annotations

import pytest

from flybridge.bridge.local.feishu.ledger import Ladder, Ledger
from flybridge.bridge.local.feishu.pushes import Push

ALL = 1_000_000


def ledger(window: int = 1000) -> Ledger:
    return Ledger(Ladder(), ack_timeout=3.0, window=window)


def event(event_id: str = "e1", event_type: str = "im.message.receive_v1") -> Push:
    return Push(event_id, event_type, b"{}", "event")


def send(books: Ledger, now: float, connection: str = "c1") -> list[str]:
    """Send all that is due; the message ids."""
    due = books.take_due(now, ALL)
    ids = [f"m-{push.event_id}-{len(push.attempts)}" for push in due]
    for push, message_id in zip(due, ids, strict=True):
        books.sent(push, message_id, connection, now)
    return ids


def test_a_new_event_is_due_at_once_and_only_once() -> None:
    books = ledger()
    push = books.owe(event(), 0.0)

    assert books.take_due(0.0, ALL) == [push]
    assert books.take_due(0.0, ALL) == []


def test_an_ack_of_200_settles_the_event() -> None:
    books = ledger()
    push = books.owe(event(), 0.0)
    (message_id,) = send(books, 0.0)

    books.answered(message_id, "c1", 200, 0.5)

    assert push.acked
    assert push.settled.is_set()
    assert books.next_timer() is None
    assert (push.attempts[0].code, push.attempts[0].answered) == (200, 0.5)


def test_an_ack_of_500_leads_up_the_ladder_until_the_event_is_given_up() -> None:
    books = ledger()
    push = books.owe(event(), 0.0)
    sent_at, now = [], 0.0
    while push.state == "owed":
        timer = books.next_timer()
        assert timer is not None
        now = timer
        (message_id,) = send(books, now)
        sent_at.append(now)
        books.answered(message_id, "c1", 500, now)

    assert sent_at == [0, 15, 315, 3915, 25_515]
    assert push.state == "given_up"
    assert push.settled.is_set()
    assert (books.stats.nacked, books.stats.repushed, books.stats.given_up) == (5, 4, 1)


def test_silence_for_3_s_counts_as_a_failure_and_a_later_ack_as_none() -> None:
    books = ledger()
    push = books.owe(event(), 0.0)
    (message_id,) = send(books, 0.0)

    books.expire(2.999)
    assert push.attempts[0].ending == "in_flight"
    assert books.next_timer() == 3.0
    books.expire(3.0)

    assert push.attempts[0].ending == "timed_out"
    assert push.due == 18.0
    assert books.answered(message_id, "c1", 200, 3.1) is None
    assert not push.acked
    assert books.stats.unexpected_acks == 1


def test_an_ack_from_a_connection_that_was_not_asked_is_ignored() -> None:
    books = ledger()
    push = books.owe(event(), 0.0)
    (message_id,) = send(books, 0.0, connection="c1")

    assert books.answered(message_id, "c2", 200, 0.1) is None
    assert not push.acked
    assert books.answered(message_id, "c1", 200, 0.2) is push.attempts[0]


def test_a_lost_connection_fails_only_what_was_in_flight_on_it() -> None:
    books = ledger()
    lost, kept = books.owe(event("e1"), 0.0), books.owe(event("e2"), 0.0)
    first, second = books.take_due(0.0, ALL)
    books.sent(first, "m1", "c1", 0.0)
    books.sent(second, "m2", "c2", 0.0)

    books.lose("c1", 1.0)

    assert (lost.attempts[0].ending, lost.due) == ("cut", 16.0)
    assert kept.attempts[0].ending == "in_flight"


def test_an_event_pushed_while_nobody_is_connected_waits_on_the_ladder() -> None:
    books = ledger()
    push = books.owe(event(), 0.0)
    for due in books.take_due(0.0, ALL):
        books.unreachable(due, 0.0)

    assert push.due == 15.0
    assert push.attempts[0].connection == ""


def test_a_reconnect_hurries_what_was_never_answered_without_using_up_a_rung() -> None:
    books = ledger()
    silent, refused = books.owe(event("e1"), 0.0), books.owe(event("e2"), 0.0)
    silent_id, refused_id = send(books, 0.0)
    books.answered(refused_id, "c1", 500, 1.0)
    books.lose("c1", 1.0)

    books.hurry(2.0)

    assert books.take_due(2.0, ALL) == [silent]
    assert silent.climbed == 0
    assert refused.due == 16.0
    assert silent_id not in {attempt.message_id for attempt in refused.attempts}


def test_a_flapping_connection_never_uses_the_ladder_up() -> None:
    books = ledger()
    push = books.owe(event(), 0.0)
    for now in range(20):
        books.hurry(float(now))
        send(books, float(now), f"c{now}")
        books.lose(f"c{now}", float(now))

    assert push.state == "owed"
    assert len(push.attempts) == 20


def test_the_same_event_id_is_one_event_delivered_once_more() -> None:
    books = ledger()
    push = books.owe(event(), 0.0)
    (message_id,) = send(books, 0.0)
    books.answered(message_id, "c1", 200, 0.1)

    again = books.owe(event(), 1.0)
    (second_id,) = send(books, 1.0)
    books.answered(second_id, "c1", 500, 1.1)

    assert again is push
    assert push.acked, "what was acked once stays acked"
    assert [attempt.code for attempt in push.attempts] == [200, 500]
    assert (books.stats.pushed, books.stats.sent) == (1, 2)
    assert books.next_timer() is None


def test_the_same_event_id_before_the_first_push_makes_two_copies() -> None:
    books = ledger()
    books.owe(event(), 0.0)
    push = books.owe(event(), 0.0)

    assert push.copies == 2
    assert len(books.take_due(0.0, ALL)) == 1


def test_one_acked_copy_is_enough() -> None:
    books = ledger()
    push = books.owe(event(), 0.0)
    books.take_due(0.0, ALL)
    books.sent(push, "m1", "c1", 0.0)
    books.sent(push, "m2", "c1", 0.0)

    books.answered("m1", "c1", 500, 0.1)
    assert push.due is None, "the other copy may still succeed"
    books.answered("m2", "c1", 200, 0.2)

    assert push.acked


def test_callbacks_are_never_pushed_again() -> None:
    books = ledger()
    push = books.owe(event(event_type="card.action.trigger"), 0.0)
    send(books, 0.0)

    books.expire(3.0)

    assert push.state == "given_up"


def test_a_full_window_holds_further_events_back_without_a_busy_timer() -> None:
    books = ledger(window=2)
    for number in range(3):
        books.owe(event(f"e{number}"), 0.0)
    first, _ = send(books, 0.0)

    assert books.take_due(0.0, ALL) == []
    assert books.next_timer() == 3.0
    books.answered(first, "c1", 200, 0.1)
    assert [push.event_id for push in books.take_due(0.1, ALL)] == ["e2"]


def test_an_event_is_pushed_again_after_15_s_5_min_1_h_and_6_h() -> None:
    assert [Ladder().wait(climbed) for climbed in range(4)] == [15, 300, 3600, 21_600]


def test_there_is_no_fifth_retry() -> None:
    assert Ladder().wait(4) is None


def test_a_scaled_clock_shortens_every_rung() -> None:
    assert [Ladder(clock_scale=60).wait(climbed) for climbed in range(4)] == [0.25, 5, 60, 360]


@pytest.mark.parametrize("clock_scale", [0, -1])
def test_a_clock_that_stands_or_runs_backwards_is_refused(clock_scale: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Ladder(clock_scale=clock_scale)
