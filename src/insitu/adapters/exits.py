"""Processes that end past `atexit`: what lets somebody deliver last there.

A child of `multiprocessing` leaves by `os._exit` once its finalizers have run. uvicorn ends itself by the signal that
it was sent, with that signal's handler as it was before; whoever has a lifespan hears of it, Django has none.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import wrapt

if TYPE_CHECKING:
    from collections.abc import Callable

_LAST: Final = -100
"""Of multiprocessing's priorities: after the application's own finalizers."""
_SECONDS: Final = 2.0
_watched: set[str] = set()


def watch(deliver: Callable[[], object]) -> None:
    """Have `deliver` called where a process ends; once is enough."""
    for module, hook in (
        ("multiprocessing.util", _multiprocessing),
        ("uvicorn.server", _uvicorn),
        ("celery.signals", _celery),
        ("gunicorn.workers.ggevent", _gevent),
    ):
        if module not in _watched:
            _watched.add(module)
            wrapt.register_post_import_hook(partial(hook, deliver), module)


def on_sigterm(shutdown: Callable[[float], object]) -> None:
    """Let SIGTERM deliver before it ends a process that has no handler of its own (servers have one)."""

    def deliver(number: int, _: object) -> None:
        shutdown(_SECONDS)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # so that whoever waits for us sees how we ended

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, deliver)


def _multiprocessing(deliver: Callable[[], object], util: Any) -> None:
    def in_a_child(_: object) -> None:
        util.Finalize(None, deliver, exitpriority=_LAST)

    util.register_after_fork(deliver, in_a_child)  # every child has this, however it was made
    if util.process.parent_process() is not None:
        in_a_child(None)  # we are one, and past its beginning


def _uvicorn(deliver: Callable[[], object], server: Any) -> None:
    async def shutdown(wrapped: Any, _: object, args: Any, kwargs: Any) -> None:
        try:
            await wrapped(*args, **kwargs)
        finally:
            await asyncio.get_running_loop().run_in_executor(None, deliver)

    wrapt.wrap_function_wrapper(server, "Server.shutdown", shutdown)


def _celery(deliver: Callable[[], object], signals: Any) -> None:
    def leave(**_: object) -> None:
        deliver()

    def begin(**_: object) -> None:  # after the application's own receivers: what they record is delivered, too
        signals.worker_process_shutdown.connect(leave, weak=False, dispatch_uid="insitu")

    signals.worker_process_init.connect(begin, weak=False, dispatch_uid="insitu exits")


def _gevent(deliver: Callable[[], object], workers: Any) -> None:
    def run(wrapped: Any, _: object, args: Any, kwargs: Any) -> Any:
        try:
            return wrapped(*args, **kwargs)
        finally:
            deliver()  # at `atexit` gevent, which looks up names in threads, may start none any more

    wrapt.wrap_function_wrapper(workers, "GeventWorker.run", run)
