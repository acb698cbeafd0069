from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Generic, Optional, TypeVar

import pytest
from pydantic import BaseModel

from flybridge.handlers import BatchContext, Context, Event, Handler
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.payloads import Payload
from flybridge.handlers.payloads.contact import UserChanged
from flybridge.handlers.payloads.im import MessageRead, MessageReceived
from flybridge.handlers.registering.annotations import models_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flybridge.handlers.payloads.im import ChatUpdated

ModelT = TypeVar("ModelT", bound=BaseModel)
OfMessages = Event[MessageReceived]


class Order(BaseModel):
    number: int


def bare(event: Event, context: Context) -> None: ...
def of_any(event: Event[Any], context: Context) -> None: ...
def of_base(event: Event[Payload], context: Context) -> None: ...
def of_pydantic(event: Event[BaseModel], context: Context) -> None: ...
def untyped(event, context): ...  # type: ignore[no-untyped-def]
def of_object(event: object, context: Context) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...
def of_batch_of_any(events: Sequence[Event], context: BatchContext) -> None: ...
def of_hidden_bare(event: Missing, context: Context) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def hidden_elsewhere(event: Event[Order], items: Iterable[ChatUpdated]) -> None: ...


def one(event: Event[Order], context: Context) -> None: ...
def aliased(event: OfMessages, context: Context) -> None: ...
def annotated(event: Annotated[Event[Order], "why"], context: Context) -> None: ...
def optional(event: Optional[Event[Order]], context: Context) -> None: ...  # noqa: UP045
def either(event: Event[MessageReceived | MessageRead], context: Context) -> None: ...
def either_event(event: Event[MessageReceived] | Event[Order], context: Context) -> None: ...
def forward(event: Event["Order"], context: Context) -> None: ...  # noqa: UP037
def batch(events: Sequence[Event[Order]], context: BatchContext) -> None: ...
def batch_list(events: list[Event[Order]], context: BatchContext) -> None: ...


@functools.wraps(one)
def wrapped(*args: Any) -> Any: ...


class Callee:
    def __call__(self, event: Event[Order], context: Context) -> None: ...

    def method(self, event: Event[Order], context: Context) -> None: ...


def three(extra: int, event: Event[Order], context: Context) -> None: ...


@pytest.mark.parametrize(
    "handle",
    [
        bare, of_any, of_base, of_pydantic, untyped, of_object, anything, of_batch_of_any,
        of_hidden_bare, lambda event, context: None, print,
    ],
)  # fmt: skip
def test_no_model_is_named_where_any_payload_will_do(handle: Callable[..., Any]) -> None:
    assert models_of(handle, "m:1") == ()


@pytest.mark.parametrize(
    ("handle", "models"),
    [
        (one, (Order,)),
        (aliased, (MessageReceived,)),
        (annotated, (Order,)),
        (optional, (Order,)),
        (either, (MessageReceived, MessageRead)),
        (either_event, (MessageReceived, Order)),
        (forward, (Order,)),
        (batch, (Order,)),
        (batch_list, (Order,)),
        (wrapped, (Order,)),
        (Callee(), (Order,)),
        (Callee().method, (Order,)),
        (functools.partial(three, 1), (Order,)),
        (hidden_elsewhere, (Order,)),
    ],
)
def test_the_model_in_the_brackets_is_found(
    handle: Callable[..., Any], models: tuple[type, ...]
) -> None:
    assert models_of(handle, "m:1") == models


def test_the_event_of_a_class_stands_behind_self() -> None:
    class Counts(Handler):
        def handle(self, event: Event[UserChanged], context: Context) -> None: ...

    assert models_of(Counts.handle, "m:1", position=1) == (UserChanged,)


class Base(Handler, Generic[ModelT]):
    def handle(self, event: Event[ModelT], context: Context) -> None: ...


def of_int(event: Event[int], context: Context) -> None: ...  # type: ignore[type-var]
def of_dict(event: Event[dict[str, Any]], context: Context) -> None: ...  # type: ignore[type-var]
def of_type_checking(event: Event[ChatUpdated], context: Context) -> None: ...


@pytest.mark.parametrize(
    ("handle", "position", "said"),
    [
        (of_int, 0, r"m:1: Event\[int\]: a payload is a pydantic model; give a subclass of pyd"),
        (of_dict, 0, r"m:1: Event\[dict\[str, typing\.Any\]\]: a payload is a pydantic model"),
        (Base.handle, 1, r"m:1: Event\[ModelT\] names a type variable; write `handle` in the"),
        (of_type_checking, 0, r"name 'ChatUpdated' is not defined.*top level of the module, above"),
    ],
)
def test_what_is_no_model_at_run_time_is_refused_with_the_cure(
    handle: Callable[..., Any], position: int, said: str
) -> None:
    with pytest.raises(RegistrationInvalid, match=said):
        models_of(handle, "m:1", position=position)
