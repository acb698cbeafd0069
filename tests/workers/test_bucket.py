"""The bucket of a rate limit: kombu's shape, its own clock."""

from __future__ import annotations

import pytest

from workers.bucket import TokenBucket


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_token_comes_at_a_time_at_the_rate():
    clock = Clock()
    bucket = TokenBucket(4.0, clock)
    assert bucket.can_consume()
    assert not bucket.can_consume()
    assert bucket.expected_time() == pytest.approx(0.25)
    clock.now += 0.2
    assert not bucket.can_consume()
    clock.now += 0.05
    assert bucket.can_consume()


def test_tokens_that_nobody_took_do_not_gather():
    clock = Clock()
    bucket = TokenBucket(4.0, clock)
    clock.now += 60
    assert bucket.expected_time() == 0
    assert [bucket.can_consume() for _ in range(3)] == [True, False, False]
