"""Celery: a span where a task is sent and one where it runs, in one trace; how long it waits in between, and takes.

Spans and attributes are those of OpenTelemetry's conventions for messaging, `send <queue>` and its PRODUCER first of
all. The CONSUMER is `process <task>` instead: most applications have one queue, which says nothing about the work.
"""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import wrapt
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from insitu.adapters import celery_worker
from insitu.core import context, guard
from insitu.core.questions import TASKS_BEGUN, TASKS_SENT
from insitu.core.records import Scope
from insitu.signals import errors, metrics
from insitu.signals.spans import Span
from insitu.signals.tracing import provider

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from insitu.signals.spans import SilentSpan

SENT: Final = "insitu_sent_at"
"""Header of a message: when it was sent, in wall nanoseconds."""
RUN: Final = "_insitu_run"
"""Where a request to run a task keeps the run's span."""

_SCOPE: Final = Scope("insitu.celery")
_tracer: Final = provider.get_tracer(_SCOPE.name)
_BOUNDS: Final = (*metrics.DURATION_BOUNDS, 30.0, 60.0, 300.0, 900.0, 3600.0)
_published: Final = metrics.counter(TASKS_SENT, labels=("task", "queue"), help="Tasks sent to a queue.")
_waited: Final = metrics.histogram(
    TASKS_BEGUN,
    labels=("task", "queue"),
    unit="s",
    help="Time from when a task was sent, or from its ETA, until it begins to run.",
    bounds=_BOUNDS,
)
_took: Final = metrics.histogram(
    "insitu.task.duration", labels=("task", "state"), unit="s", help="Duration of tasks, by outcome.", bounds=_BOUNDS
)
_OUTCOMES: Final = {
    "celery.exceptions.Ignore": "IGNORED",
    "celery.exceptions.Reject": "REJECTED",
    "celery.exceptions.Retry": "RETRY",
}
_LOSSES: Final = frozenset(("billiard.exceptions.TimeLimitExceeded", "billiard.exceptions.WorkerLostError"))


def hook(module: Any) -> None:
    """Listen to the tasks of every application of an imported Celery.

    Args:
        module: `celery.app.base`.

    """
    celery_worker.watch()
    signals = importlib.import_module("celery.signals")
    for name, receive in _RECEIVERS.items():
        getattr(signals, name).connect(receive, weak=False, dispatch_uid="insitu")
    wrapt.wrap_function_wrapper(module, "Celery.send_task", _send)  # no signal tells of what could not be sent


def _is_left_alone() -> bool:
    """Whether a task is not ours to trace: we are off, it is our own traffic, or the application chose another hook."""
    theirs = getattr(sys.modules.get("opentelemetry.instrumentation.celery"), "CeleryInstrumentor", None)
    return (
        not provider.on
        or bool(context.current().get(context.SUPPRESS_KEY))
        or (theirs is not None and bool(theirs().is_instrumented_by_opentelemetry))
    )


# --- where a task is sent ---


def _send(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
    if _is_left_alone():
        return wrapped(*args, **kwargs)
    about = {"celery.task_name": args[0] if args else kwargs.get("name")}
    with _tracer.start_as_current_span("send", kind=SpanKind.PRODUCER, attributes=about):
        return wrapped(*args, **kwargs)


def _before_publish(**message: Any) -> None:
    if not _is_left_alone():
        guard.call("celery.send", _address, message)


def _address(message: Mapping[str, Any]) -> None:
    """Write on a message where it comes from, and on the span where it goes."""
    headers, span = message["headers"], context.current().get(context.SPAN_KEY)
    if isinstance(span, Span) and span.kind is SpanKind.PRODUCER:
        queue = _queue(message)
        span.update_name(f"send {queue}")
        span.set_attributes(_messaging("send", queue, message["properties"]["correlation_id"]))
    propagate.inject(headers)
    headers[SENT] = provider.wall()


def _after_publish(sender: str, **message: Any) -> None:
    if not _is_left_alone():
        _published.add(1, task=sender, queue=_queue(message))


def _queue(delivery: Mapping[str, Any]) -> str:
    """Return a queue's name, which is the routing key; a message to all queues of an exchange has none."""
    return delivery.get("routing_key") or delivery.get("exchange") or ""


def _messaging(operation: str, queue: str, message: str) -> dict[str, Any]:
    return {
        "messaging.system": "celery",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "messaging.message.id": message,
    }


# --- where it runs ---


class _Run(NamedTuple):
    """One run of a task; `began` are monotonic nanoseconds."""

    span: Span | SilentSpan
    token: Any
    began: int


def _before_run(task: Any, **_: object) -> None:
    if not _is_left_alone():
        guard.call("celery.begin", _begin, task, task.request)


def _begin(task: Any, request: Any) -> None:
    own: dict[str, Any] = {"celery.task_name": task.name, "celery.retries": request.retries}
    headers: Mapping[str, Any] = {} if request.is_eager else request.headers or {}
    if request.is_eager:  # there is no message: it runs within who wants it
        kind, above = SpanKind.INTERNAL, context.current()
    else:
        kind, above = SpanKind.CONSUMER, propagate.extract(headers, Context())
        own |= _messaging("process", _queue(request.delivery_info), request.id)
    made = Span(f"process {task.name}", kind, own, _SCOPE)
    span = provider.start(made, above.get(context.SPAN_KEY))
    token = context.attach(Context({**above, context.SPAN_KEY: span}))
    vars(request)[RUN] = _Run(span, token, provider.monotonic())
    sent = headers.get(SENT)
    if type(sent) is int:
        waited = (provider.wall() - max(sent, _eta(request.eta))) / 1e9
        _waited.record(max(waited, 0.0), task=task.name, queue=own["messaging.destination.name"])


def _eta(given: str | None) -> int:
    """Return an ETA, which is in UTC unless it says otherwise, in wall nanoseconds; 0 where there is none."""
    if not given:
        return 0
    moment = datetime.fromisoformat(given)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)


def _after_run(task: Any, state: str | None = None, retval: Any = None, **_: object) -> None:
    run = vars(task.request).pop(RUN, None)
    if run is not None:
        guard.call("celery.end", _note, run, task, state, retval)
        context.leave(run.token)
        run.span.end()


def _note(run: _Run, task: Any, state: str | None, outcome: Any) -> None:
    """Write down how a run has ended; without a state an exception is on its way through Celery."""
    if state is None:
        outcome = sys.exception()
        failed = isinstance(outcome, Exception)
        state = _OUTCOMES.get(errors.type_name(outcome), "FAILURE") if failed else "TERMINATED"
    run.span.set_attribute("celery.state", state)
    if state == "FAILURE" and not isinstance(outcome, task.throws):
        _fail(run.span, outcome, eager=task.request.is_eager)
    _took.record((provider.monotonic() - run.began) / 1e9, task=task.name, state=state)


def _fail(span: Span | SilentSpan, error: BaseException, *, eager: bool) -> None:
    if isinstance(span, Span):
        span.fail(error)
    elif not eager:  # nobody above sees it
        errors.errors.emit(error, span.trace, handled=False)


def _failed(sender: Any, task_id: str, exception: BaseException, **_: object) -> None:
    """Record the loss of a task along with its process, which only the worker's main process can tell of."""
    if errors.type_name(exception) in _LOSSES and not _is_left_alone():
        about = {"celery.task_name": sender.name, "messaging.message.id": task_id}
        guard.call("celery.lost", lambda: errors.errors.capture(exception, handled=False, attributes=about))


_RECEIVERS: Final[Mapping[str, Callable[..., None]]] = {
    "worker_init": celery_worker.begins,
    "before_task_publish": _before_publish,
    "after_task_publish": _after_publish,
    "task_prerun": _before_run,
    "task_postrun": _after_run,
    "task_failure": _failed,
}
