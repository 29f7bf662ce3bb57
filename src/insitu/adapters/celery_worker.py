"""What a Celery worker says to its broker by itself is left out: polls, by Redis or HTTP, with no trace above them.

A task that runs in one of these threads begins in a context of its own.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import wrapt
from opentelemetry.context import Context

from insitu.core import context, guard

if TYPE_CHECKING:
    from collections.abc import Callable

_AS_IT_ENDS: Final = (
    ("kombu.asynchronous.hub", "Hub.fire_timers"),
    ("celery.concurrency.prefork", "_run_ready_callbacks"),
)
"""What a worker's loop does in a thread of its own while the pool of processes ends (Celery 5.7 does)."""


def watch() -> None:
    """Leave out what other threads than the main one do."""
    for module, name in _AS_IT_ENDS:
        wrapt.register_post_import_hook(partial(_leave_out, name), module)


def begins(**_: object) -> None:
    """Leave out what the main thread does."""
    context.attach(_unseen())


def _unseen() -> Context:
    return Context({**context.current(), context.SUPPRESS_HTTP_KEY: True})


def _leave_out(name: str, module: Any) -> None:
    def run(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
        token = context.attach(_unseen())
        try:
            return wrapped(*args, **kwargs)
        finally:
            context.leave(token)

    guard.attempt(wrapt.wrap_function_wrapper, module, name, run)  # not every version has it
