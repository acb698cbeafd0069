"""Middleware: hooks that run before a handler, after its success and at its failure.

Each middleware becomes one layer around the callable that the registry hands out, the first one
outermost.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flybridge.handlers.base import Context, Run
from flybridge.handlers.calling.threads import HandlerThreads, in_thread, of_caller
from flybridge.handlers.calling.tracebacks import users_frames
from flybridge.handlers.errors import RegistrationInvalid, Reject, Retry
from flybridge.handlers.event import Event
from flybridge.handlers.registering.source import PerProcess, accepts, check_callable

__all__ = ["Middleware"]

HOOKS = ("before", "after", "error")

Call = Callable[..., Any]

_threads = PerProcess(HandlerThreads)
"""Run `def` handlers between `async def` hooks when the caller is no worker, as in tests."""


class Middleware:
    """Base class of middleware: write any of the hooks, `def` or `async def`, and pass it to `use`.

    One instance per process serves all events, several at once: do not keep the state of one event
    in `self`. `event` is an `Event` and `context` a `Context`; around a batch handler the hooks run
    once per batch, with the sequence of its events and a `BatchContext`.
    """

    def before(self, event: Any, context: Any) -> Any:
        """Runs before the handler, in the order of `use`; `context.handler` is the handler's name.

        Raises:
            Exception: the handler does not run. The attempt fails as if the handler had raised
                it, Retry and Reject included; middleware whose `before` has run gets an `error`.
        """

    def after(self, event: Any, context: Any, result: Any) -> Any:
        """Runs when the handler has returned `result`, in reverse order.

        Raises:
            Retry, Reject: they decide the attempt, although the handler has succeeded.
            Exception: any other is logged as `middleware.failed`, and the event stays a success;
                otherwise a handler that has done its work would run again.
        """

    def error(self, event: Any, context: Any, error: BaseException) -> Any:
        """Runs when the handler, or a middleware inside this one, has raised; in reverse order.

        The timeout of a coroutine is an `asyncio.CancelledError`. When the hook returns, the
        attempt still fails with `error`.

        Raises:
            Exception: replaces `error`, unless that tells the process to exit.
        """


@dataclass(frozen=True, slots=True)
class Layer:
    """A middleware in use, with the hooks that it has."""

    given: object
    name: str
    before: Call | None
    after: Call | None
    error: Call | None
    is_async: bool
    """Whether any hook is `async def`."""


def layer_of(given: object) -> Layer:
    """Make a layer of a middleware class or instance. A class is called at the first event.

    Raises:
        RegistrationInvalid: it is not a middleware, or has no hooks.
    """
    cls = given if isinstance(given, type) else type(given)
    if not issubclass(cls, Middleware):
        raise RegistrationInvalid(
            f"{cls.__qualname__} is not a middleware; give a subclass of flybridge.Middleware, or "
            "an instance of one"
        )
    if cls is given and not accepts(cls):
        raise RegistrationInvalid(f"{cls.__qualname__}() needs arguments; give an instance")
    _refuse_slips(cls)
    hooks = {hook: _checked(cls, hook) for hook in HOOKS if _written(cls, hook)}
    made = PerProcess(cls) if cls is given else None
    calls = {hook: _late(made, hook) if made else getattr(given, hook) for hook in hooks}
    return Layer(
        given,
        f"{cls.__module__}:{cls.__qualname__}",
        calls.get("before"),
        calls.get("after"),
        calls.get("error"),
        any(map(inspect.iscoroutinefunction, hooks.values())),
    )


def around(run: Run, layers: Sequence[Layer], *, is_async: bool) -> tuple[Run, bool]:
    """The handler inside these layers, the first outermost; and whether the result is async."""
    for layer in reversed(layers):
        if is_async or layer.is_async:
            run, is_async = _within_async(run if is_async else _in_thread(run), layer), True
        else:
            run = _within(run, layer)
    return run, is_async


def _within(run: Run, layer: Layer) -> Run:
    """Put `def` hooks around a `def` handler; they run in the handler's thread."""

    def call(hook: Call | None, *arguments: Any) -> None:
        if hook is not None:
            _refuse_awaitable(hook(*arguments), hook)

    def run_within(event: Event, context: Context) -> Any:
        call(layer.before, event, context)
        try:
            result = run(event, context)
        except BaseException as error:
            with _orders_stand(error, layer, context):
                call(layer.error, event, context, error)
            raise
        # A decorator or a factory may hide an async handler behind a plain function.
        if inspect.isawaitable(result):
            return _ending(result, layer, event, context)
        with _success_stands(layer, context):
            call(layer.after, event, context, result)
        return result

    return run_within


def _within_async(run: Run, layer: Layer) -> Run:
    """Put hooks of either kind around a handler that is awaited on the event loop."""

    async def run_within(event: Event, context: Context) -> Any:
        await _call(layer.before, event, context)
        return await _ending(run(event, context), layer, event, context)

    return run_within


async def _ending(running: Awaitable[Any], layer: Layer, event: Event, context: Context) -> Any:
    try:
        result = await running
    except GeneratorExit:  # the loop is closed: nothing can be awaited any more
        raise
    except BaseException as error:
        with _orders_stand(error, layer, context):
            await _call(layer.error, event, context, error)
        raise
    with _success_stands(layer, context):
        await _call(layer.after, event, context, result)
    return result


async def _call(hook: Call | None, *arguments: Any) -> None:
    if hook is not None:
        answer = hook(*arguments)
        if inspect.isawaitable(answer):
            await answer


def _in_thread(run: Run) -> Run:
    """Run a `def` handler in a thread, so that it does not block the event loop."""

    async def run_in_thread(event: Event, context: Context) -> Any:
        result = await in_thread(of_caller.get() or _threads.get(), run, event, context)
        return await result if inspect.isawaitable(result) else result

    return run_in_thread


@contextmanager
def _orders_stand(error: BaseException, layer: Layer, context: Context) -> Iterator[None]:
    """Let an `error` hook replace the error, unless that tells the process to exit."""
    try:
        yield
    except Exception as raised:
        if not isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        _log_failure(layer, "error", context, raised)


@contextmanager
def _success_stands(layer: Layer, context: Context) -> Iterator[None]:
    """Log a failure or timeout of `after` only: the handler has done its work."""
    try:
        yield
    except (Retry, Reject):
        raise
    except (Exception, asyncio.CancelledError) as error:
        _log_failure(layer, "after", context, error)


def _log_failure(layer: Layer, hook: str, context: Context, error: BaseException) -> None:
    traceback = (type(error), error, users_frames(error))
    context.logger.error("middleware.failed", middleware=layer.name, hook=hook, exc_info=traceback)


def _refuse_awaitable(answer: object, hook: Call) -> None:
    """Refuse what a plain `def` hook returned, if it would have to be awaited."""
    if not inspect.isawaitable(answer):
        return
    if inspect.iscoroutine(answer):
        answer.close()
    raise TypeError(
        f"{getattr(hook, '__qualname__', hook)} returned an awaitable, but is a plain def; "
        "write it as async def"
    )


def _written(cls: type[Middleware], hook: str) -> bool:
    return getattr(cls, hook) is not getattr(Middleware, hook)


def _checked(cls: type[Middleware], hook: str) -> Call:
    function: Call = getattr(cls, hook)
    shape = inspect.signature(getattr(Middleware, hook))
    check_callable(function, (None,) * len(shape.parameters), f"({', '.join(shape.parameters)})")
    return function


def _late(made: PerProcess[Middleware], hook: str) -> Call:
    def call(*arguments: Any) -> Any:
        return getattr(made.get(), hook)(*arguments)

    return call


def _refuse_slips(cls: type[Middleware]) -> None:
    """Refuse a misspelt hook, which would never be called."""
    for name in vars(cls):
        near = difflib.get_close_matches(name.removeprefix("on_"), HOOKS, n=1, cutoff=0.8)
        if near and name not in HOOKS:
            raise RegistrationInvalid(
                f"{cls.__module__}:{cls.__qualname__}.{name} is never called; "
                f"did you mean {near[0]!r}?"
            )
    if not any(_written(cls, hook) for hook in HOOKS):
        raise RegistrationInvalid(
            f"{cls.__module__}:{cls.__qualname__} does nothing; write before(self, event, context),"
            " after(self, event, context, result) or error(self, event, context, error)"
        )
