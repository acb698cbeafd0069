"""The sentences that tell operators why something is not replayed or purged, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from flybridge.bridge.errors import BridgeError
from flybridge.handlers.registry import Registry
from flybridge.workers.operate.replay import MOVED, Answer

RESULTS = {
    "done": "done by now",
    "running": "in work",
    "retry": "in work",
    "dead": "dead (see flybridge dlq replay)",
    "gone": "gone meanwhile",
    "changed": "changed meanwhile",
    "handler": "without their handler here",
    "unreadable": "unreadable",
    "spoilt": "with a spoilt key",
    "unknown": "too old to know whether they are done (see --again)",
    "missing": "not found",
}
"""Result -> what the summary calls it."""

_SENTENCES = {
    "done": "it is done by now, so it is not replayed; purge its letter: flybridge dlq purge {id}",
    "running": "it is in work; wait for its end",
    "retry": "it is in work; wait for its end",
    "gone": "its letter {id} has gone meanwhile: replayed or purged",
    "changed": "letter {id} holds another event by now; look at it again",
    "unreadable": "no event can be read from {id} ({detail}); it stays where it is",
    "spoilt": "one of its keys is spoilt ({detail}); it stays where it is; see what wrote the key, "
    "then rename or delete it",
}

_STATES = {
    "done": "the event is done by now",
    "running": "the event is in work",
    "retry": "the event is in work",
    "dead": "the event is dead, and its letter was purged",
}


class Refused(BridgeError):
    """What was asked for cannot be done at all; the text says why, and what can."""


def why(answer: Answer, registry: Registry | None) -> str:
    """The sentence for an event that was not replayed; `registry` names the handlers loaded."""
    item = answer.item
    if answer.result == "handler":
        others = _loaded(item.event_type, registry)
        reason = (
            f"its handler {answer.detail} is not loaded here, {others}; give its module with "
            "--handlers or FLYBRIDGE_HANDLERS, or use --force if the workers have it or it was "
            "renamed"
        )
    else:
        reason = _SENTENCES[answer.result].format(id=item.id, detail=answer.detail)
    return f"{item.event_id or item.id}: {reason}"


def _loaded(event_type: str, registry: Registry | None) -> str:
    found = registry.lookup(event_type) if registry and registry.is_registered(event_type) else ()
    names = ", ".join(each.name for each in found)
    return f"for {event_type} there is {names}" if names else f"and no other for {event_type}"


def missing(name: str, group: str, state: str) -> str:
    """The sentence for an id without a dead letter; `state` is that of the event in the group."""
    hint = _STATES.get(state, "see them with: flybridge dlq list")
    return f"{name}: group {group} has no dead letter of this letter or event id; {hint}"


def summary(counts: Mapping[str, int], done: str) -> str:
    """How many were replayed, and why the others were not; `done` is the word for it."""
    left: Counter[str] = Counter()
    for result, count in counts.items():
        if result != MOVED:
            left[RESULTS[result]] += count
    line = f"{done} {counts.get(MOVED, 0):,} of {sum(counts.values()):,}"
    if not left:
        return line
    return f"{line}; left: " + ", ".join(f"{count:,} {what}" for what, count in left.most_common())
