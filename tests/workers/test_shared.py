"""What several threads of a worker use at once, with a thread switch after nearly every step."""

from __future__ import annotations

from bridge.streams import Entry, Keys
from tests.workers.hammer import hammer
from workers.claims import Pending
from workers.guard import Guard

ENTRY = Entry("ev1", "im.message.receive_v1", "cli_test", "tk", "2.0", 1, 2, 3, "", "", b"{}")


def test_threads_that_claim_at_once_get_tokens_of_their_own(monkeypatch):
    tokens: list[str] = []

    def claim_all(self: Guard, pending: object, given: list[str], plain: list[int]) -> set[int]:
        tokens.extend(given)
        return set(plain)

    monkeypatch.setattr(Guard, "_claim_fresh", claim_all)
    monkeypatch.setattr("workers.guard.run_all", lambda redis, calls: [])
    guard = Guard(None, Keys("cli_test"), "workers", event_lease=30, boot="w1")
    items = [Pending("s", f"{number}-0", ENTRY) for number in range(20)]
    hammer(*[lambda: guard.claim(items)] * 3)
    assert len(tokens) == len(set(tokens)) > 100
