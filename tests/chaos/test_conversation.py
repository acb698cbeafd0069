"""The pure part of the cut-proxy: it counts replies rightly, however the bytes are cut."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.conversation import ABORTED, Conversation, Fate, Step, Verdict, name_of

REPLIES = [
    b"+OK\r\n",
    b":7\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
    b"-ERR no\r\n",
]

words = st.lists(st.binary(max_size=40), max_size=4).map(lambda rest: [b"SET", *rest])
cuts = st.lists(st.integers(1, 30), max_size=40)


def packed(*commands: list[bytes]) -> bytes:
    return b"".join(hiredis.pack_command(tuple(command)) for command in commands)


def chunks(data: bytes, sizes: list[int]) -> list[bytes]:
    found = []
    for size in sizes:
        found.append(data[:size])
        data = data[size:]
    return [*found, data]


def passing(verdicts: dict[str, Verdict] | None = None) -> Conversation:
    """One that gives commands of these names another fate."""
    fates = verdicts or {}
    return Conversation(lambda _, name: fates.get(name, Fate.PASS), {})


@given(commands=st.lists(words, max_size=8), cut=cuts)
def test_commands_arrive_whole_and_in_order_however_they_are_cut(
    commands: list[list[bytes]], cut: list[int]
) -> None:
    conversation = passing()
    asked = [conversation.asked(chunk) for chunk in chunks(packed(*commands), cut)]
    assert b"".join(step.to_server for step in asked) == packed(*commands)
    assert conversation.unanswered == len(commands)


@given(replies=st.lists(st.sampled_from(REPLIES), max_size=12), cut=cuts)
def test_every_reply_is_counted_and_passed_on(replies: list[bytes], cut: list[int]) -> None:
    conversation = passing()
    conversation.asked(packed(*[[b"GET", b"k"]] * len(replies)))
    heard = [conversation.answered(chunk) for chunk in chunks(b"".join(replies), cut)]
    assert b"".join(step.to_client for step in heard) == b"".join(replies)
    assert conversation.unanswered == 0


@given(before=st.integers(0, 4), after=st.integers(0, 3), cut=cuts, reply=st.sampled_from(REPLIES))
def test_what_was_asked_before_a_lost_reply_is_answered_and_nothing_after_it(
    before: int, after: int, cut: list[int], reply: bytes
) -> None:
    conversation = passing({"DEL": Fate.LOSE_REPLY})
    gets, others = [[b"GET", b"k"]] * before, [[b"SET", b"k", b"v"]] * after
    step = conversation.asked(packed(*gets, [b"DEL", b"k"], *others))
    if before:
        assert step.to_server == packed(*gets), "the command waits for the replies before it"
        step = Step(to_client=b"")
        for chunk in chunks(reply * before, cut):
            heard = conversation.answered(chunk)
            step.to_client += heard.to_client
            step.to_server += heard.to_server
        assert step.to_client == reply * before
        expected = packed([b"DEL", b"k"], *others)
    else:
        expected = packed([b"DEL", b"k"], *others)
    assert step.to_server == expected
    steps = [conversation.answered(chunk) for chunk in chunks(reply, cut)]
    assert b"".join(step.to_client for step in steps) == b""
    assert [step.over for step in steps].count(True) == 1


def test_a_lost_command_goes_nowhere() -> None:
    step = passing({"DEL": Fate.LOSE_COMMAND}).asked(packed([b"DEL", b"k"], [b"SET", b"k", b"v"]))
    assert step == Step(over=True)


def test_an_error_takes_its_place_among_the_replies() -> None:
    conversation = passing({"DEL": b"-OOM no\r\n"})
    get, delete = [b"GET", b"k"], [b"DEL", b"k"]
    assert conversation.asked(packed(get, delete, get)) == Step(to_server=packed(get))
    answered = conversation.answered(b"+1\r\n")
    assert answered == Step(to_client=b"+1\r\n-OOM no\r\n", to_server=packed(get))
    assert conversation.answered(b"+2\r\n") == Step(to_client=b"+2\r\n")


def test_a_reply_lost_in_a_transaction_is_the_one_that_holds_it() -> None:
    conversation = passing({"DEL": Fate.LOSE_REPLY})
    transaction = [[b"MULTI"], [b"DEL", b"k"], [b"EXEC"]]
    step = conversation.asked(packed(*transaction))
    assert step.to_server == packed([b"MULTI"], [b"DEL", b"k"])
    step = conversation.answered(b"+OK\r\n+QUEUED\r\n")
    assert step == Step(to_client=b"+OK\r\n+QUEUED\r\n", to_server=packed([b"EXEC"]))
    assert conversation.answered(b"*1\r\n:1\r\n") == Step(over=True)


def test_an_error_in_a_transaction_has_redis_refuse_all_of_it() -> None:
    conversation = passing({"DEL": b"-OOM no\r\n"})
    conversation.asked(packed([b"MULTI"], [b"DEL", b"k"], [b"EXEC"], [b"GET", b"k"]))
    step = conversation.answered(b"+OK\r\n")
    assert step == Step(to_client=b"+OK\r\n-OOM no\r\n" + ABORTED, to_server=packed([b"DISCARD"]))
    assert conversation.answered(b"+OK\r\n") == Step(to_server=packed([b"GET", b"k"]))
    assert conversation.answered(b"+1\r\n") == Step(to_client=b"+1\r\n")


SLOTS = b"*1\r\n*3\r\n:0\r\n:5460\r\n*4\r\n$9\r\n127.0.0.1\r\n:30001\r\n$2\r\nid\r\n*0\r\n"
MASTER = b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n30001\r\n"


@given(cut=cuts, before=st.integers(0, 3), reply=st.sampled_from([SLOTS, MASTER]))
def test_who_asks_for_a_server_is_told_the_proxys_port_for_it(
    cut: list[int], before: int, reply: bytes
) -> None:
    question = {SLOTS: [b"CLUSTER", b"SLOTS"],
                MASTER: [b"sentinel", b"get-master-addr-by-name", b"mymaster"]}[reply]  # fmt: skip
    conversation = Conversation(lambda *_: Fate.PASS, {}, {30001: 40001})
    gets = [[b"GET", b"30001"]] * before
    asked = conversation.asked(packed(*gets, question, [b"PING"]))
    heard = [conversation.answered(chunk) for chunk in chunks(b"+30001\r\n" * before, cut)]
    heard += [conversation.answered(chunk) for chunk in chunks(reply, cut)]
    heard.append(conversation.answered(b"+30001\r\n"))
    told = b"".join(step.to_client for step in heard)
    assert told == b"+30001\r\n" * before + reply.replace(b"30001", b"40001") + b"+30001\r\n"
    sent = asked.to_server + b"".join(step.to_server for step in heard)
    assert sent == packed(*gets, question, [b"PING"])


@pytest.mark.parametrize("reply", [b"*-1\r\n", b"-IDONTKNOW no such master\r\n", b"*0\r\n"])
def test_a_server_that_knows_of_none_is_heard_too(reply: bytes) -> None:
    conversation = Conversation(lambda *_: Fate.PASS, {}, {30001: 40001})
    conversation.asked(packed([b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"x"]))
    assert conversation.answered(reply).to_client == reply.replace(b"*-1", b"$-1")


def test_what_a_subscriber_is_sent_unasked_is_no_reply() -> None:
    conversation = passing({"UNSUBSCRIBE": Fate.LOSE_REPLY})
    conversation.asked(packed([b"SUBSCRIBE", b"a", b"b"]))
    conversation.answered(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
    assert conversation.unanswered == 1
    conversation.answered(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n")
    conversation.asked(packed([b"PING"]))
    conversation.answered(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n")
    assert conversation.unanswered == 1
    conversation.answered(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
    assert conversation.unanswered == 0


def test_commands_are_named_with_what_distinguishes_them() -> None:
    scripts = {"a" * 40: "claim", "a9993e364706816aba3e25717850c26c9cd0d89d": "lease"}
    assert name_of([b"xadd", b"s"], scripts) == "XADD"
    assert name_of([b"XGROUP", b"create", b"s"], scripts) == "XGROUP CREATE"
    assert name_of([b"EVALSHA", b"a" * 40, b"0"], scripts) == "EVALSHA claim"
    assert name_of([b"EVALSHA", b"b" * 40, b"0"], scripts) == "EVALSHA " + "b" * 40
    assert name_of([b"EVAL", b"abc", b"0"], scripts) == "EVAL lease"
