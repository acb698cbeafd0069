"""A handler gets the payload that its annotation names, if its events can have it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import BaseModel, Field
from structlog.testing import capture_logs

from flybridge.handlers import Batch, BatchContext, Context, Event, Handler, Middleware, Registry
from flybridge.handlers.errors import PayloadInvalid, RegistrationInvalid
from flybridge.handlers.payloads import Payload
from flybridge.handlers.payloads.approval import ApprovalInstance
from flybridge.handlers.payloads.base import PayloadV1
from flybridge.handlers.payloads.im import (
    ChatChanged,
    ChatMembersChanged,
    Message,
    MessageRead,
    MessageReceived,
    Reaction,
)
from flybridge.handlers.testing import run, run_async, run_batch

MESSAGE, READ, CUSTOM = "im.message.receive_v1", "im.message.message_read_v1", "shop.order_v1"


class Order(BaseModel):
    number: int
    note: str = Field(default="", max_length=5)


class Chat(BaseModel):
    message: Inner


class Inner(BaseModel):
    chat_id: str


class Patient(Payload):
    number: int = 0
    note: str = ""


class Extended(MessageReceived):
    shop: str = ""


def of(model: Any) -> Callable[..., Any]:
    def handler(event: Any, context: Context) -> Any:
        return event.payload

    handler.__annotations__["event"] = Event[model]
    return handler


def order(**body: Any) -> dict[str, Any]:
    header = {"event_id": "ev-1", "event_type": CUSTOM}
    return {"schema": "2.0", "header": header, "event": body}


@pytest.mark.parametrize(
    ("model", "patterns"),
    [
        (MessageReceived, (MESSAGE,)),
        (MessageReceived, ("my.gateway.*", "message_of_mine")),
        (Reaction, ("im.message.reaction.*",)),
        (ChatChanged, ("im.chat.member.bot.added_v1", "im.chat.member.user.added_v1")),
        (MessageReceived | MessageRead, (MESSAGE, READ)),
        (ApprovalInstance, ("approval.approval.approved_v1",)),
        (PayloadV1, ("approval_instance",)),
        (Extended, (MESSAGE,)),
        (Extended, ("vc.room.created_v1",)),
        (Order, ("*",)),
        (Patient, ("*",)),
        (Payload, ("*",)),
    ],
)
def test_a_payload_that_the_events_can_have_is_taken(model: Any, patterns: tuple[str, ...]) -> None:
    Registry().register(of(model), *patterns)


@pytest.mark.parametrize(
    ("model", "pattern", "said"),
    [
        (
            MessageRead,
            MESSAGE,
            "takes Event[MessageRead], but im.message.receive_v1 has the payload MessageReceived; "
            "annotate Event[MessageReceived], or register it for im.message.message_read_v1",
        ),
        (MessageReceived, "im.message.*", "im.message.message_read_v1 has the payload MessageRead"),
        (MessageReceived, "*", "takes Event[MessageReceived], but "),
        (MessageRead | Reaction, MESSAGE, "takes Event[MessageRead | Reaction], but im.message"),
        (
            MessageReceived,
            "vc.room.created_v1",
            "vc.room.created_v1 has no model in flybridge; annotate Event, or Event[…] with",
        ),
        (ChatMembersChanged, "im.chat.disbanded_v1", "has the payload ChatChanged"),
        (Extended, READ, "has the payload MessageRead; annotate Event[MessageRead]"),
        (Message, MESSAGE, "has the payload MessageReceived; annotate Event[MessageReceived]"),
        (PayloadV1, MESSAGE, "has the payload MessageReceived"),
    ],
)
def test_a_payload_that_the_events_lack_is_refused_with_both_and_the_cure(
    model: Any, pattern: str, said: str
) -> None:
    with pytest.raises(RegistrationInvalid) as refusal:
        Registry().register(of(model), pattern)
    assert said in str(refusal.value)
    assert str(refusal.value).startswith(f"{__name__}:")


def test_a_handler_whose_payload_is_the_events_own_is_called_as_it_is() -> None:
    for handler in (of(MessageReceived), of(Payload), lambda event, context: None):
        assert Registry().register(handler, MESSAGE).run is handler


def test_a_model_of_the_users_own_is_read_for_its_handler_alone() -> None:
    registry, event = Registry(), Event.from_envelope(order(number="7", more=1))
    registry.register(of(Order), CUSTOM, name="own")
    registry.register(lambda event, context: event.payload, CUSTOM, name="plain")
    context = Context(1, 5, 0.0, event.id, event.type, "own")
    own, plain = (each.run(event, context) for each in registry.lookup(CUSTOM))
    assert own == Order(number=7)
    assert type(plain) is Payload
    assert plain is event.payload


@pytest.mark.parametrize("handler", [of(Chat), of(Extended), of(Order | Chat)])
def test_known_types_can_have_a_model_of_the_users_own(handler: Any) -> None:
    result = run(handler, MESSAGE, {"message.chat_id": "oc_1"})
    assert result.raise_for_failure().value.message.chat_id == "oc_1"


def test_each_type_of_a_pattern_gives_the_model_that_fits() -> None:
    assert type(run(of(MessageReceived | Order), MESSAGE).value) is MessageReceived
    both = Registry().register(of(MessageReceived | Order), MESSAGE, CUSTOM)
    event = Event.from_envelope(order(number=1))
    assert both.run(event, Context(1, 5, 0.0, "", CUSTOM, "")) == Order(number=1)


class Takes(Handler):
    event_types = CUSTOM

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix

    async def handle(self, event: Event[Order], context: Context) -> str:
        await asyncio.sleep(0)
        return f"{event.payload.number}{self.suffix}"


def makes_takes() -> Takes:
    return Takes("!")


def makes_some_handler() -> Handler:
    return Takes("?")


@pytest.mark.parametrize(
    ("handler", "value"),
    [(Takes, "7"), (Takes("."), "7."), (makes_takes, "7!"), (lambda: Takes("~"), "7~"),
     (makes_some_handler, "7?")],
    ids=["class", "instance", "factory", "lambda", "factory of a base class"],
)  # fmt: skip
async def test_it_works_whatever_the_handler_is_given_as(handler: Any, value: str) -> None:
    registry = Registry()
    registry.register(handler, CUSTOM)
    result = await run_async(handler, order(number=7), registry=registry)
    assert result.raise_for_failure().value == value


def test_a_factory_that_says_nothing_is_checked_when_it_is_tried() -> None:
    class Reads(Handler):
        def handle(self, event: Event[MessageRead], context: Context) -> None: ...

    Reads.handle.__annotations__["event"] = Event[MessageRead]
    registry = Registry()
    registry.register(lambda: Reads(), MESSAGE)
    with pytest.raises(RegistrationInvalid, match="has the payload MessageReceived"):
        registry.check_factories()
    event = Event.from_envelope(order() | {"header": {"event_id": "e", "event_type": MESSAGE}})
    with pytest.raises(RegistrationInvalid, match="has the payload MessageReceived"):
        registry.lookup(MESSAGE)[0].run(event, Context(1, 5, 0.0, "", MESSAGE, ""))


def test_a_body_that_does_not_fit_is_rejected_with_the_fields_and_without_their_values() -> None:
    result = run(of(Order), order(number="private", note="secret text"))
    assert result.rejected
    assert isinstance(result.error, PayloadInvalid)
    assert str(result.error) == (
        "the body of shop.order_v1 does not fit Order: number: Input should be a valid integer, "
        "unable to parse string as an integer; note: String should have at most 5 characters; "
        "change the model, then replay the dead letter"
    )
    chained = result.error.__cause__, result.error.__context__
    assert chained == (None, None)


def test_of_many_fields_a_few_are_named() -> None:
    names = list("abcdefg")
    many = type("Many", (BaseModel,), {"__annotations__": dict.fromkeys(names, int)})
    assert "; e: Field required and 2 more; " in str(run(of(many), order()).error)


def test_a_model_by_the_projects_base_reads_with_its_patience() -> None:
    with capture_logs() as lines:
        read = run(of(Patient), order(number=["odd"], note=7)).raise_for_failure().value
    assert (read.number, read.note) == (["odd"], "7")
    assert [line["field"] for line in lines if line["event"] == "payload.unexpected"] == [
        "Patient.number"
    ]


def test_an_error_hook_of_middleware_sees_it_as_the_handlers_failure() -> None:
    seen: list[BaseException] = []

    class Notes(Middleware):
        def error(self, event: Event, context: Context, error: BaseException) -> None:
            seen.append(error)

    registry, handler = Registry(), of(Order)
    registry.register(handler, CUSTOM)
    registry.use(Notes())
    assert run(handler, order(), registry=registry).rejected
    assert [type(error) for error in seen] == [PayloadInvalid]


def saver(results: Callable[[list[int]], Any], *, is_async: bool) -> Callable[..., Any]:
    def save(events: Sequence[Event[Order]], context: BatchContext) -> Any:
        assert len(context.attempts) == len(events)
        return results([event.payload.number for event in events])

    async def save_async(events: Sequence[Event[Order]], context: BatchContext) -> Any:
        await asyncio.sleep(0)
        return save(events, context)

    return save_async if is_async else save


@pytest.mark.parametrize("is_async", [False, True])
def test_of_a_batch_only_the_event_that_does_not_fit_fails(is_async: bool) -> None:
    got: list[int] = []
    registry = Registry()
    save = saver(got.extend, is_async=is_async)
    registry.register(save, CUSTOM, batch=Batch(5))
    events = [order(number=1), order(number="x"), order(number=3)]
    results = run_batch(save, events, registry=registry)
    assert [each.given_up for each in results] == ["", "rejected", ""]
    assert got == [1, 3]
    assert [each.rejected for each in run_batch(save, [order()] * 2, registry=registry)] == [
        True,
        True,
    ]
    assert got == [1, 3], "a batch without a fitting event does not come to the handler"


def test_what_a_batch_handler_says_of_each_event_stands_beside_those_that_do_not_fit() -> None:
    registry = Registry()
    save = saver(lambda numbers: [ValueError(number) for number in numbers], is_async=False)
    registry.register(save, CUSTOM, batch=Batch(5), max_attempts=1)
    results = run_batch(save, [order(), order(number=2)], registry=registry)
    assert [(type(each.error), each.given_up) for each in results] == [
        (PayloadInvalid, "rejected"),
        (ValueError, "attempts"),
    ]
    wrong = saver(lambda numbers: {}, is_async=False)
    registry.register(wrong, CUSTOM, batch=Batch(5), name="wrong")
    unfit, mistaken = run_batch(wrong, [order(), order(number=2)], registry=registry)
    assert unfit.rejected
    assert "returned dict for 1 events" in str(mistaken.error)


def test_an_event_can_be_read_as_another_model_by_hand() -> None:
    event = Event.from_json(json.dumps(order(number=3)).encode())
    assert event.read_as(Order).payload.number == 3
    assert event.read_as(Order) == event
    assert type(event.payload) is Payload
    with pytest.raises(PayloadInvalid, match=r"shop\.order_v1 does not fit Chat: message: Field"):
        event.read_as(Chat)
