"""Makes one callable of what a user registers: a class, an instance, a factory or a function.

A class or factory is called at the first event in a process, not before: that is after the fork, so
that it may open connections.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from flybridge.handlers.base import Context, Handler, Run
from flybridge.handlers.errors import RegistrationInvalid
from flybridge.handlers.event import Event
from flybridge.handlers.registering.annotations import Models, models_of
from flybridge.handlers.registering.payload_fit import reading

MadeT = TypeVar("MadeT")


@dataclass(frozen=True, slots=True)
class Source:
    """A handler in one form, whatever it was given as."""

    given: object
    name: str
    """`module:QualName`."""
    where: str
    """`module:line`, for messages."""
    owner: type[Handler]
    """The class whose attributes are the options."""
    run: Run
    is_async: bool
    """Whether it is known to be `async def`; for a factory its return annotation decides."""
    models: Models
    """The payload models that the annotation of the event names."""

    @property
    def is_untold(self) -> bool:
        """Whether it is a factory without a return annotation that names a handler."""
        return isinstance(self.run, Lazy) and self.owner is Handler

    def handler(self) -> object:
        """The instance, made now if there is none yet, or the function that handles events.

        Raises:
            RegistrationInvalid: a factory returned something else than a handler.
            Exception: the factory or the class raised it.
        """
        return self.run.handler() if isinstance(self.run, Lazy) else self.given


def source_of(given: object) -> Source:
    """Find out what the user gave, and make a source of it.

    Raises:
        RegistrationInvalid: it is not a handler, or one that could never run.
    """
    if isinstance(given, type):
        return _of_class(given)
    if isinstance(given, Handler):
        run = _checked(type(given))
        return _source(given, type(given), type(given), given.handle, run)
    if callable(given):
        return _of_factory(given) if _is_factory(given) else _of_function(given)
    raise _not_a_handler(given)


def _of_class(cls: type) -> Source:
    if not issubclass(cls, Handler):
        raise _not_a_handler(cls)
    handle = _checked(cls)
    if not accepts(cls):
        raise RegistrationInvalid(
            f"{place_of(handle)}: {cls.__qualname__}() needs arguments; register a factory: "
            f"registry.register(lambda: {cls.__qualname__}(…), …, name={cls.__qualname__!r})"
        )
    return _source(cls, cls, cls, Lazy(cls, cls), handle)


def _of_factory(factory: Callable[[], Any]) -> Source:
    if inspect.iscoroutinefunction(factory):
        raise RegistrationInvalid(
            f"{place_of(factory)}: a factory must be a plain def; open connections in `handle`"
        )
    owner = _made_by(factory)
    handle = _checked(owner) if owner is not Handler else None
    return _source(factory, _named(factory), owner, Lazy(factory, owner), handle)


def _of_function(function: Callable[..., Any]) -> Source:
    check_callable(function, (None, None), "(event, context)")
    return _source(function, _named(function), Handler, function, function)


def _source(
    given: object, named: Any, owner: type[Handler], run: Run, code: Callable[..., Any] | None
) -> Source:
    where = place_of(code or named)
    behind_self = 0 if owner is Handler else 1
    return Source(
        given=given,
        name=f"{named.__module__}:{getattr(named, '__qualname__', type(named).__qualname__)}",
        where=where,
        owner=owner,
        run=run,
        is_async=inspect.iscoroutinefunction(code),
        models=models_of(code, where, position=behind_self) if code else (),
    )


class PerProcess(Generic[MadeT]):
    """Calls `build` once per process, at first use: a forked child must not share connections."""

    def __init__(self, build: Callable[[], MadeT]) -> None:
        self._build = build
        self._lock = threading.Lock()
        self._made: tuple[int, MadeT] | None = None

    def get(self) -> MadeT:
        """The object of this process, built now if there is none yet."""
        pid = os.getpid()
        made = self._made
        return made[1] if made is not None and made[0] == pid else self._make(pid)

    def _make(self, pid: int) -> MadeT:
        with self._lock:
            if self._made is None or self._made[0] != pid:
                self._made = (pid, self._build())
            return self._made[1]


class Lazy:
    """Builds the handler at the first event, and passes events to it.

    Args:
        build: the class or factory.
        known: the class whose annotations were read at registration.
    """

    def __init__(self, build: Callable[[], Any], known: type[Handler]) -> None:
        self._build = build
        self._known = known
        self._made = PerProcess(self._make)

    def __call__(self, event: Event, context: Context) -> Any:
        return self._made.get().run(event, context)

    def handler(self) -> Handler:
        """The handler of this process, built now if there is none yet.

        Raises:
            RegistrationInvalid: a factory returned something else than a handler.
            Exception: the factory or the class raised it.
        """
        return self._made.get().handler

    def _make(self) -> _Made:
        handler = self._build()
        if not isinstance(handler, Handler):
            where = place_of(_named(self._build))
            raise RegistrationInvalid(
                f"the factory at {where} returned {type(handler).__name__}; "
                "return an instance of a Handler subclass"
            )
        handle = _checked(type(handler))
        if handle is self._known.handle:
            return _Made(handler, handler.handle)
        models = models_of(handle, place_of(handle), position=1)
        return _Made(handler, reading(handler.handle, models) if models else handler.handle)


class _Made(NamedTuple):
    handler: Handler
    run: Run


def _checked(cls: type[Handler]) -> Callable[..., Any]:
    """The `handle` of a class, checked."""
    if cls.handle is Handler.handle:
        raise RegistrationInvalid(
            f"{cls.__module__}:{cls.__qualname__} has no `handle`; "
            "write: async def handle(self, event, context)"
        )
    check_callable(cls.handle, (None, None, None), "(self, event, context)")
    return cls.handle


def check_callable(function: Callable[..., Any], arguments: tuple[None, ...], shape: str) -> None:
    """Refuse a function that could never run with these arguments.

    Raises:
        RegistrationInvalid: it does not accept them, or is a generator.
    """
    if not accepts(function, *arguments):
        raise RegistrationInvalid(
            f"{place_of(function)}: {getattr(function, '__qualname__', function)} does not accept "
            f"{shape}; give it exactly these parameters"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RegistrationInvalid(
            f"{place_of(function)}: a function with `yield` would never run; use return or await"
        )


def _is_factory(given: Callable[..., Any]) -> bool:
    if isinstance(given, functools.partial) and isinstance(given.func, type):
        return True
    return accepts(given) and not accepts(given, None, None)


def accepts(function: Callable[..., Any], *arguments: object) -> bool:
    """Whether the function can be called with these arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # some builtins have no signature: let the call decide
        return True
    return True


def _made_by(factory: Callable[[], Any]) -> type[Handler]:
    """The class that a factory's return annotation names; Handler if it names none."""
    made: object = None
    if isinstance(factory, functools.partial):
        made = factory.func
    else:
        try:
            made = typing.get_type_hints(factory).get("return")
        except (NameError, TypeError, AttributeError):  # names that exist only for type checkers
            return Handler
    return made if isinstance(made, type) and issubclass(made, Handler) else Handler


def _named(given: Any) -> Any:
    return given.func if isinstance(given, functools.partial) else given


def place_of(code: Any) -> str:
    """`module:line`, for messages."""
    code = inspect.unwrap(_named(code))
    line = getattr(getattr(code, "__code__", None), "co_firstlineno", None)
    module = getattr(code, "__module__", "?")
    return f"{module}:{line}" if line else f"{module}"


def _not_a_handler(given: object) -> RegistrationInvalid:
    what = given.__qualname__ if isinstance(given, type) else repr(given)[:80]
    return RegistrationInvalid(
        f"{what} is not a handler; give a Handler subclass or instance, a function(event, context) "
        "or a function without parameters that returns a Handler"
    )
