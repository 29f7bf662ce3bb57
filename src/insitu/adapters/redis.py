"""redis-py (5 and later), sync and async: a client span for each command and each pipeline, and hits and misses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import wrapt
from opentelemetry.trace import SpanKind

from insitu.adapters import caches, redis_commands, redis_pools
from insitu.adapters.library import Library
from insitu.core import context, guard
from insitu.signals import tracing
from insitu.signals.spans import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from insitu.signals.spans import SilentSpan

_REDIS: Final = Library("redis", "RedisInstrumentor")
_CLIENT: Final = SpanKind.CLIENT
_CODE_LENGTH: Final = 32
_NO_SCRIPT: Final = "NoScriptError"
"""An answer rather than an error: who sends a script by its hash sends the whole now, as redis-py's own locks do."""


def hook(module: Any) -> None:
    """Wrap the clients and pipelines of an imported redis-py, a cluster's too, and not what waits: PubSub, Monitor."""
    for kind, wrapper in ((module, _wrapper), (module.asyncio, _async_wrapper)):
        wrap = wrapt.wrap_function_wrapper
        wrap(kind.client, "Redis.execute_command", wrapper(_command))
        wrap(kind.client, "Pipeline.immediate_execute_command", wrapper(_command))  # from WATCH to MULTI
        wrap(kind.client, "Pipeline.execute", wrapper(_pipeline))
        wrap(kind.cluster, "RedisCluster.execute_command", wrapper(_command))
        wrap(kind.cluster, "ClusterPipeline.execute", wrapper(_cluster_pipeline))
    redis_pools.hook(module)


class Exchange:
    """One or more commands sent at once, and their answers.

    The span is never current: nothing of the application runs below it.

    Args:
        span: of all of them together.
        commands: what was sent, each with its arguments.
        alone: whether it is one, with an answer of its own.

    """

    __slots__ = ("_alone", "_commands", "_span")

    def __init__(self, span: Span | SilentSpan, commands: Sequence[Sequence[Any]] = (), *, alone: bool = False) -> None:
        self._span = span
        self._commands = commands
        self._alone = alone

    def answered(self, answer: Any) -> None:
        """Take note of what was found."""
        if not self._commands:
            return
        hits, misses = redis_commands.found(zip(self._commands, (answer,) if self._alone else answer, strict=False))
        if hits or misses:
            caches.count("redis", hits, misses)
            if self._alone and hits + misses == 1:
                self._span.set_attribute("cache.hit", value=hits == 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            if type(error).__name__ != _NO_SCRIPT:
                self._span.fail(error)
            self._span.set_attribute("db.response.status_code", guard.call("redis", _code, error))
        self._span.end()


_NOTHING: Final = Exchange(tracing.SILENT)


def _wrapper(begin: Callable[[Any, Sequence[Any]], Exchange]) -> Callable[..., Any]:
    def call(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
        if _REDIS.is_left_alone():
            return wrapped(*args, **kwargs)
        with guard.call("redis", begin, client, args, default=_NOTHING) as exchange:
            answer = wrapped(*args, **kwargs)
            guard.call("redis", exchange.answered, answer)
            return answer

    return call


def _async_wrapper(begin: Callable[[Any, Sequence[Any]], Exchange]) -> Callable[..., Any]:
    async def call(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
        if _REDIS.is_left_alone():
            return await wrapped(*args, **kwargs)
        with guard.call("redis", begin, client, args, default=_NOTHING) as exchange:
            answer = await wrapped(*args, **kwargs)
            guard.call("redis", exchange.answered, answer)
            return answer

    return call


def _command(client: Any, args: Sequence[Any]) -> Exchange:
    name, text = redis_commands.describe(args)
    return Exchange(_start(name, name, text, client), (args,), alone=True)


def _pipeline(pipeline: Any, _: Sequence[Any]) -> Exchange:
    commands = [command for command, _ in pipeline.command_stack]
    if not commands and not pipeline.watching:
        return _NOTHING  # is sent
    # Of an async one `transaction` is a method, and true.
    whole = pipeline.is_transaction if hasattr(pipeline, "is_transaction") else pipeline.transaction
    kind = "MULTI" if whole or pipeline.explicit_transaction else "PIPELINE"
    name, text = redis_commands.describe_all(kind, commands)
    return Exchange(_start(kind, name, text, pipeline, len(commands)), commands)


def _cluster_pipeline(pipeline: Any, _: Sequence[Any]) -> Exchange:
    """Begin without the commands: each version of redis-py keeps them elsewhere."""
    return Exchange(_start("PIPELINE", "PIPELINE", "", pipeline, len(pipeline)))


def _start(name: str, operation: str, text: str, client: Any, batch: int = 1) -> Span | SilentSpan:
    place = redis_pools.place(getattr(client, "connection_pool", None))
    own: dict[str, Any] = {"db.system.name": "redis", "db.operation.name": operation, **place}
    if text:
        own["db.query.text"] = text
    if batch > 1:
        own["db.operation.batch.size"] = batch
    parent = context.current().get(context.SPAN_KEY)
    return tracing.provider.start(Span(name, _CLIENT, own, _REDIS.scope), parent)


def _code(error: BaseException) -> str | None:
    """Return the word that the server begins its error with: WRONGTYPE.

    redis-py cuts off those that it has a class for; since 7 it keeps them beside the message.
    """
    if type(error).__name__ == _NO_SCRIPT:
        return "NOSCRIPT"
    kept = getattr(error, "status_code", None)
    if kept or type(error).__name__ != "ResponseError":
        return kept
    # Inside of a pipeline it stands behind the command's number; in an async one, as a tuple is written.
    word = str(error).rpartition(" caused error: ")[2].lstrip("('\"").partition(" ")[0]
    return word if word.isupper() and word.isalnum() and len(word) <= _CODE_LENGTH else None
