"""`@insitu.trace`.

A span for each call of a function, coroutine, generator, async generator, method, or of a class's public methods.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from insitu.core import context, guard, values
from insitu.signals.block import INTERNAL, Block
from insitu.signals.limits import clean
from insitu.signals.spans import SilentSpan, Span
from insitu.signals.tracing import OWN, SILENT, provider

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import TracebackType

F = TypeVar("F")


@overload
def trace(function: F, /) -> F: ...
@overload
def trace(*, name: str | None = None, **attributes: Any) -> Callable[[F], F]: ...
def trace(function: Any = None, /, *, name: str | None = None, **attributes: Any) -> Any:
    """Make a span for each call.

    Works on functions, coroutine functions, generators and async generators (the span lasts from the first value to
    the end, and is current only while the generator runs), static and class methods, and classes, of which all public
    methods are traced. Calls outside of a trace make a trace of their own, so it serves background jobs too.

    Args:
        function: what is decorated.
        name: the span's name; by default the function's qualified name.
        attributes: set on each span.

    """
    if function is None:
        return lambda decorated: _decorate(decorated, name, attributes)
    return _decorate(function, name, attributes)


def _decorate(target: Any, name: str | None, attributes: dict[str, Any]) -> Any:
    # What cannot be wrapped stays as it is: a decorator of ours must not break an import.
    return guard.call("trace", _wrap, target, name, attributes, default=target)


def _wrap(target: Any, name: str | None, attributes: dict[str, Any]) -> Any:
    if isinstance(target, type):
        return _wrap_class(target, attributes)
    if isinstance(target, staticmethod | classmethod):
        return type(target)(_wrap(target.__func__, name, attributes))
    if not callable(target):
        guard.warn(
            "trace", "insitu: @trace cannot wrap a %s; put it below the decorator that made it", type(target).__name__
        )
        return target
    title = values.text(
        name or getattr(target, "__qualname__", type(target).__name__).replace("<locals>.", ""), values.SMALL
    )
    plain = {**_code(target), **clean(attributes, provider.limits)}
    wrapped_by = next((wrap for is_one, wrap in _KINDS if is_one(target)), _function)
    return wrapped_by(target, title, plain)


def _wrap_class(target: type, attributes: dict[str, Any]) -> type:
    for attribute, member in list(vars(target).items()):
        if not attribute.startswith("_") and (
            inspect.isfunction(member) or isinstance(member, staticmethod | classmethod)
        ):
            setattr(target, attribute, _wrap(member, None, attributes))
    return target


def _code(function: Any) -> dict[str, Any]:
    module = getattr(function, "__module__", None)
    return (
        {"code.function.name": f"{module}.{function.__qualname__}"}
        if module and hasattr(function, "__qualname__")
        else {}
    )


def _function(function: Callable[..., Any], title: str, attributes: dict[str, Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with Block(title, INTERNAL, attributes.copy(), OWN):
            return function(*args, **kwargs)

    return traced


def _coroutine(function: Callable[..., Any], title: str, attributes: dict[str, Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        with Block(title, INTERNAL, attributes.copy(), OWN):
            return await function(*args, **kwargs)

    return traced


class _Running:
    """A span that is current only while its generator runs: the consumer's work between two values is not its child.

    Entered around each step. Leaving it with an exception ends the span: `StopIteration` as it should be, anything
    else as a failure.
    """

    __slots__ = ("_span", "_token")

    def __init__(self, title: str, attributes: dict[str, Any]) -> None:
        parent = context.current().get(context.SPAN_KEY)
        self._span: Span | SilentSpan = (
            provider.start(Span(title, INTERNAL, attributes, OWN), parent) if provider.on else SILENT
        )

    def __enter__(self) -> None:
        self._token = context.enter(self._span)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        context.leave(self._token)
        if error is None:
            return
        if not isinstance(error, StopIteration | StopAsyncIteration | GeneratorExit):
            self._span.fail(error)
        self._span.end()

    def close(self) -> None:
        self._span.end()


class _Steps(Generator[Any, Any, Any]):
    """The generator protocol around a generator, with the span current in each step."""

    def __init__(self, inner: Any, running: _Running) -> None:
        self._inner = inner
        self._running = running

    def send(self, value: Any) -> Any:
        with self._running:
            return self._inner.send(value)

    def throw(self, *raised: Any) -> Any:
        with self._running:
            return self._inner.throw(*raised)

    def close(self) -> None:
        with self._running:
            self._inner.close()
        self._running.close()


def _generator(function: Callable[..., Any], title: str, attributes: dict[str, Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from _Steps(function(*args, **kwargs), _Running(title, attributes.copy())))

    return traced


class _Thrown:
    """Keeps what the consumer throws into a generator, to be thrown into the inner one."""

    __slots__ = ("error",)

    def __enter__(self) -> None:
        self.error: BaseException | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.error = error
        return True


def _async_generator(function: Callable[..., Any], title: str, attributes: dict[str, Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner, running, thrown = function(*args, **kwargs), _Running(title, attributes.copy()), _Thrown()
        step, argument = inner.asend, None
        try:
            while True:
                with running:
                    value = await step(argument)
                with thrown:
                    argument = yield value
                step, argument = (inner.athrow, thrown.error) if thrown.error is not None else (inner.asend, argument)
        except StopAsyncIteration:
            return

    return traced


_KINDS: Final = (
    (inspect.isasyncgenfunction, _async_generator),
    (inspect.isgeneratorfunction, _generator),
    (inspect.iscoroutinefunction, _coroutine),
)
"""How to tell what is decorated, and what wraps it; anything else that can be called is a plain function."""
