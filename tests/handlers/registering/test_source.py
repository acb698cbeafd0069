from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from flybridge.handlers import Context, Event, Handler
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.registering.source import source_of


class Greet(Handler):
    max_attempts: ClassVar[int] = 2

    def __init__(self, greeting: str = "hello", mark: str = "", end: str = "") -> None:
        self.greeting = greeting

    def handle(self, event: Event, context: Context) -> str:
        return self.greeting


class GreetLater(Handler):
    async def handle(self, event: Event, context: Context) -> None: ...


def greet(event: Event, context: Context) -> str:
    return "hello"


async def greet_later(event: Event, context: Context) -> None: ...


def annotated() -> Greet:
    return Greet("from a factory")


def hinted_for_mypy_only() -> NoSuchName:  # type: ignore[name-defined]  # noqa: F821
    return Greet("from a factory")


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Greet, "hello"),
        (Greet("good day"), "good day"),
        (greet, "hello"),
        (logged(greet), "hello"),
        (lambda *args: "anything", "anything"),
        (lambda: Greet("from a factory"), "from a factory"),
        (annotated, "from a factory"),
        (hinted_for_mypy_only, "from a factory"),
        (functools.partial(Greet, "partly"), "partly"),
        (Greet("bound").handle, "bound"),
    ],
)
def test_whatever_handles_can_be_run(
    given: object, said: str, event: Callable[..., Event], context: Context
) -> None:
    assert source_of(given).run(event(), context) == said


def test_async_is_known_before_anything_runs() -> None:
    assert [source_of(given).is_async for given in (GreetLater, GreetLater(), greet_later)] == [
        True,
        True,
        True,
    ]
    assert not source_of(greet).is_async
    assert not source_of(Greet).is_async


def test_names_and_places_are_those_of_the_code() -> None:
    assert source_of(Greet).name == source_of(Greet()).name == f"{__name__}:Greet"
    assert source_of(functools.partial(Greet, "x")).name == f"{__name__}:Greet"
    assert source_of(logged(greet)).name == f"{__name__}:greet"
    line = greet.__code__.co_firstlineno
    assert source_of(logged(greet)).where == f"{__name__}:{line}"
    assert source_of(Greet).where == f"{__name__}:{Greet.handle.__code__.co_firstlineno}"


def test_the_options_of_a_factory_are_those_of_the_class_it_returns() -> None:
    assert source_of(annotated).owner is Greet
    assert source_of(functools.partial(Greet, "x")).owner is Greet
    assert source_of(lambda: Greet()).owner is Handler


def test_a_class_or_factory_is_called_once_and_not_before_the_first_event(
    event: Callable[..., Event], context: Context
) -> None:
    calls = []

    def factory() -> Handler:
        calls.append(1)
        return Greet()

    source = source_of(factory)
    assert not calls
    barrier = threading.Barrier(4)

    def handle() -> None:
        barrier.wait()
        source.run(event(), context)

    threads = [threading.Thread(target=handle) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    lazy: Any = source.run
    lazy._made._make(os.getpid())  # as a thread does that came while another was inside
    assert calls == [1]


def test_a_forked_process_makes_a_handler_of_its_own(
    event: Callable[..., Event], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Greet] = []

    def factory() -> Handler:
        made.append(Greet())
        return made[-1]

    source = source_of(factory)
    source.run(event(), context)
    monkeypatch.setattr(os, "getpid", lambda: 4_000_001)
    source.run(event(), context)
    source.run(event(), context)
    assert len(made) == 2


def test_a_failing_factory_is_asked_again_at_the_next_event(
    event: Callable[..., Event], context: Context
) -> None:
    answers = [OSError("database is away"), Greet("back")]

    def factory() -> Handler:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    source = source_of(factory)
    with pytest.raises(OSError, match="away"):
        source.run(event(), context)
    assert source.run(event(), context) == "back"


def test_a_factory_that_returns_no_handler_fails_with_a_sentence(
    event: Callable[..., Event], context: Context
) -> None:
    with pytest.raises(RegistrationInvalid, match="returned int; return an instance"):
        source_of(lambda: 7).run(event(), context)


class WithoutHandle(Handler):
    pass


class TooFewParameters(Handler):
    def handle(self, event: Event) -> None: ...  # type: ignore[override]


class TooManyParameters(Handler):
    def handle(self, event: Event, context: Context, more: int) -> None: ...  # type: ignore[override]


class Yields(Handler):
    def handle(self, event: Event, context: Context) -> Any:
        yield


class YieldsLater(Handler):
    async def handle(self, event: Event, context: Context) -> Any:
        yield


class NeedsArguments(Handler):
    def __init__(self, database: object) -> None: ...

    def handle(self, event: Event, context: Context) -> None: ...


async def make_later() -> Handler:
    return Greet()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (WithoutHandle, "has no `handle`"),
        (WithoutHandle(), "has no `handle`"),
        (Handler, "has no `handle`"),
        (TooFewParameters, r"does not accept \(self, event, context\)"),
        (TooManyParameters, r"does not accept \(self, event, context\)"),
        (Yields, "yield"),
        (YieldsLater, "yield"),
        (NeedsArguments, "register a factory"),
        (make_later, "plain def"),
        (lambda event: None, r"does not accept \(event, context\)"),
        (int, "int is not a handler"),
        (7, "7 is not a handler"),
        ("im.message.receive_v1", "is not a handler"),
        (None, "None is not a handler"),
    ],
)
def test_what_could_never_run_is_refused_with_a_sentence(given: object, said: str) -> None:
    with pytest.raises(RegistrationInvalid, match=said):
        source_of(given)
