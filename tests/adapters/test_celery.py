"""Celery with a real worker, in a thread of this process; whole workers that end are in tests/end_to_end."""

import inspect
import threading
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, chain, group
from celery.app import base
from celery.app.trace import build_tracer
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.signals import setup_logging, task_failure
from kombu.asynchronous import Hub
from kombu.exceptions import EncodeError
from opentelemetry import baggage, context
from opentelemetry.instrumentation.celery import CeleryInstrumentor

import insitu
from insitu.adapters import celery as adapter
from insitu.core.context import SUPPRESS_HTTP_KEY, SUPPRESS_KEY
from insitu.testing import FakeClock, recording
from tests.adapters.serving import counted
from tests.servers import until

app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
app.conf.update(
    broker_transport_options={"polling_interval": 0.01},
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=False,
)
seen = []


@app.task(name="add", bind=True)
def add(self, a, b=0):
    seen.append({**self.request.headers} if self.request.headers else {})
    with insitu.span("inside"):
        insitu.log.info("adding")
    return a + b


@app.task(name="whose")
def whose(user=None):
    if user:
        insitu.bind(user=user)
    return baggage.get_baggage("tier")


@app.task(name="fail", bind=True, throws=(KeyError,))
def fail(self, kind="ValueError"):
    raise {
        "ValueError": ValueError("no"),
        "KeyError": KeyError("as expected"),
        "Ignore": Ignore(),
        "Reject": Reject("not mine", requeue=False),
        "SoftTimeLimitExceeded": SoftTimeLimitExceeded(),
    }[kind]


@app.task(name="flaky", bind=True, max_retries=1)
def flaky(self, countdown=0):
    try:
        raise ValueError("again")
    except ValueError as error:
        raise self.retry(exc=error, countdown=countdown) from error


@app.task(name="outer")
def outer():
    add.apply((1, 2))
    add(3, 4)


@app.task(name="leave")
def leave():
    raise SystemExit(3)


@pytest.fixture(scope="module", autouse=True)
def worker():
    def leave(**_):
        """Who listens takes over: Celery would set the root logger's level for all tests to come."""

    setup_logging.connect(leave)
    with start_worker(app, perform_ping_check=False, loglevel="CRITICAL"):
        yield
    setup_logging.disconnect(leave)


@pytest.fixture
def hooked(monkeypatch):
    """Send as nobody has wrapped it, until a test hooks; the signals' receivers stay, and are the same each time."""
    monkeypatch.setattr(base.Celery, "send_task", inspect.unwrap(base.Celery.send_task))
    adapter.hook(base)
    seen.clear()


@pytest.fixture
def recorded(hooked):
    with recording() as started:
        yield started


def result_of(task, *args, **options):
    """What the worker returned or raised."""
    return task.apply_async(args, **options).get(timeout=10, interval=0.01, propagate=False)


def run(task, *args, headers=(), **message):
    """As a worker runs a task whose message came so, in this very thread."""
    request = {"id": "1", "headers": dict(headers), "delivery_info": {"routing_key": "celery"}, **message}
    build_tracer(task.name, task, app=app)("1", args, {}, request)


def ended(recorded, number):
    """So many runs, which end a moment after their results are there."""
    runs = until(lambda: len(found := runs_of(recorded)) >= number and found, what=f"{number} runs")
    assert len(runs) == number
    return runs


def runs_of(recorded):
    return [span for span in recorded.spans if span.name.startswith("process ")]


def test_a_task_is_sent_and_processed_in_one_trace(recorded):
    with insitu.span("work"):
        sent = add.delay(1, b=2)
    assert sent.get(timeout=10, interval=0.01) == 3
    (process,) = ended(recorded, 1)
    send, work, inside = (recorded.span(name) for name in ("send celery", "work", "inside"))
    about = {
        "celery.task_name": "add",
        "messaging.system": "celery",
        "messaging.destination.name": "celery",
        "messaging.message.id": sent.id,
    }
    operation = {f"messaging.operation.{which}": "send" for which in ("name", "type")}
    assert (send.kind.name, send.parent_id, send.attributes) == ("PRODUCER", work.span_id, about | operation)
    operation = {f"messaging.operation.{which}": "process" for which in ("name", "type")}
    assert (process.name, process.kind.name, process.parent_id) == ("process add", "CONSUMER", send.span_id)
    assert process.attributes == about | operation | {"celery.retries": 0, "celery.state": "SUCCESS"}
    assert (process.local_root, process.parent_remote, process.status_code) == (True, True, 0)
    assert inside.parent_id == process.span_id
    assert {span.trace.trace_id for span in (process, inside)} == {work.trace.trace_id}
    (log,) = [log for log in recorded.logs if log.body == "adding"]
    assert (log.trace_id, log.span_id) == (work.trace.trace_id, inside.span_id)


def test_the_message_carries_the_trace_and_nothing_else_of_ours_but_its_time(recorded):
    result_of(add, 1)
    (process,) = ended(recorded, 1)
    (headers,) = seen
    assert set(headers) == {"traceparent", adapter.SENT}
    assert headers["traceparent"] == f"00-{process.trace.trace_id:032x}-{process.parent_id:016x}-03"


def test_headers_of_the_application_arrive(recorded):
    result_of(add, 1, headers={"tenant": "north"})
    assert seen[0]["tenant"] == "north"


def test_the_older_protocol_carries_the_trace_as_well(recorded):
    old = Celery("old", broker="memory://", backend="cache+memory://", set_as_current=False)
    old.conf.update(task_protocol=1)
    old.send_task("add", (1,))
    (process,) = ended(recorded, 1)
    send = recorded.span("send celery")
    assert (process.parent_id, process.attributes["messaging.message.id"]) == (
        send.span_id,
        send.attributes["messaging.message.id"],
    )


def test_tasks_are_counted_where_they_are_sent_and_measured_where_they_run(recorded):
    for _ in range(3):
        result_of(add, 1)
    ended(recorded, 3)
    published = recorded.point("insitu.task.published")
    assert (published.labels, published.value) == ({"task": "add", "queue": "celery"}, 3)
    duration, wait = recorded.point("insitu.task.duration"), recorded.point("insitu.task.wait")
    assert (duration.labels, sum(duration.buckets)) == ({"task": "add", "state": "SUCCESS"}, 3)
    assert (wait.labels, sum(wait.buckets)) == ({"task": "add", "queue": "celery"}, 3)
    assert 0 < wait.value < 30
    assert 0 < duration.value < 30


def test_what_waits_for_its_time_is_late_only_from_then_on(hooked):
    with recording(clock=FakeClock()) as recorded:
        sent = recorded.clock.wall()
        due = datetime.fromtimestamp(sent / 1e9, UTC) + timedelta(hours=1)
        recorded.clock.advance(2 * 3600)
        for eta in (None, due.isoformat(), due.replace(tzinfo=None).isoformat()):
            run(add, 1, headers={adapter.SENT: sent}, eta=eta)
        assert recorded.point("insitu.task.wait").value == pytest.approx((2 + 1 + 1) * 3600)


@pytest.mark.parametrize(
    "headers", [{}, {adapter.SENT: "yesterday"}, {"traceparent": "nonsense"}, {"traceparent": ["1"]}]
)
def test_a_message_of_strangers_is_processed_in_a_trace_of_its_own(recorded, headers):
    with insitu.span("the worker's own"):
        run(add, 1, headers=headers)
    (process,) = ended(recorded, 1)
    assert (process.parent_id, process.local_root) == (0, True)
    assert process.trace.trace_id != recorded.span("the worker's own").trace.trace_id


def test_baggage_travels_along_and_stays_within_its_task(recorded):
    token = context.attach(baggage.set_baggage("tier", "gold"))
    try:
        assert result_of(whose) == "gold"
    finally:
        context.detach(token)
    assert result_of(whose) is None


def test_what_one_task_binds_is_not_on_the_next(recorded):
    result_of(whose, "anna")
    result_of(whose)
    first, second = ended(recorded, 2)
    assert first.settle()["user.id"] == "anna"
    assert "user.id" not in second.settle()


def test_an_exception_fails_the_span_and_is_one_error(recorded):
    assert isinstance(result_of(fail), ValueError)
    (process,) = ended(recorded, 1)
    assert (process.status_code, process.attributes["error.type"], process.attributes["celery.state"]) == (
        2,
        "ValueError",
        "FAILURE",
    )
    (error,) = recorded.errors
    assert (error.type, error.span_id, error.frames[-1].code.co_name) == ("ValueError", process.span_id, "fail")
    assert counted(recorded, "insitu.task.duration", task="fail", state="FAILURE") == 1


@pytest.mark.parametrize(("kind", "state"), [("Ignore", "IGNORED"), ("Reject", "REJECTED"), ("KeyError", "FAILURE")])
def test_a_way_to_end_that_the_task_wants_is_no_error(recorded, kind, state):
    fail.delay(kind)
    (process,) = ended(recorded, 1)
    assert (process.status_code, process.attributes["celery.state"], recorded.errors) == (0, state, [])
    assert counted(recorded, "insitu.task.duration", task="fail", state=state) == 1


def test_a_soft_time_limit_that_nobody_handles_is_an_error(recorded):
    fail.delay("SoftTimeLimitExceeded")
    (process,) = ended(recorded, 1)
    assert (process.status_code, [error.type for error in recorded.errors]) == (
        2,
        ["billiard.exceptions.SoftTimeLimitExceeded"],
    )


def test_a_retry_is_no_error_and_goes_on_in_the_same_trace(recorded):
    assert isinstance(result_of(flaky), ValueError)
    first, second = ended(recorded, 2)
    again = [span for span in recorded.spans if span.name == "send celery"][1]
    assert (first.attributes["celery.state"], first.attributes["celery.retries"], first.status_code) == ("RETRY", 0, 0)
    assert (second.attributes["celery.state"], second.attributes["celery.retries"]) == ("FAILURE", 1)
    assert (again.parent_id, second.parent_id) == (first.span_id, again.span_id)
    assert [error.type for error in recorded.errors] == ["ValueError"]
    assert len({span.trace.trace_id for span in (first, second)}) == 1


def test_a_chain_is_one_trace_and_each_step_is_sent_by_the_one_before(recorded):
    with insitu.span("work"):
        assert chain(add.s(1), add.s(2), add.s(3))().get(timeout=10, interval=0.01) == 6
    runs = ended(recorded, 3)
    sends = sorted((span for span in recorded.spans if span.name == "send celery"), key=lambda span: span.start_time)
    assert [span.parent_id for span in sends] == [recorded.span("work").span_id, *(run.span_id for run in runs[:2])]
    assert [run.parent_id for run in runs] == [span.span_id for span in sends]


def test_every_member_of_a_group_is_sent_by_who_wants_it(recorded):
    with insitu.span("work"):
        assert group(add.s(number) for number in range(3))().get(timeout=10, interval=0.01) == [0, 1, 2]
    assert len(ended(recorded, 3)) == 3
    assert {s.parent_id for s in recorded.spans if s.name == "send celery"} == {recorded.span("work").span_id}


def test_a_task_by_name_to_a_queue_of_its_own(recorded):
    app.send_task("elsewhere.resize", queue="pictures")
    span = recorded.span("send pictures")
    assert (span.attributes["celery.task_name"], span.attributes["messaging.destination.name"]) == (
        "elsewhere.resize",
        "pictures",
    )
    assert recorded.point("insitu.task.published").labels == {"task": "elsewhere.resize", "queue": "pictures"}


def test_what_cannot_be_sent_is_an_error_of_the_sender_and_not_counted(recorded):
    with pytest.raises(EncodeError), insitu.span("work"):
        add.delay(object())
    send = recorded.span("send celery")
    assert (send.status_code, send.attributes["error.type"]) == (2, "kombu.exceptions.EncodeError")
    assert [error.type for error in recorded.errors] == [
        "kombu.exceptions.EncodeError"
    ]  # once, though two spans saw it
    assert "insitu.task.published" not in {family.name for family in recorded.runtime.collect()}


def test_a_task_that_is_called_as_a_function_is_nothing_but_that(recorded):
    with insitu.span("work"):
        assert add(1, 2) == 3
    assert [span.name for span in recorded.spans] == ["inside", "work"]


def test_an_eager_task_is_a_span_within_its_caller(recorded, monkeypatch):
    monkeypatch.setitem(app.conf, "task_always_eager", True)
    with insitu.span("work"):
        assert add.delay(1, 2).get() == 3
    process = recorded.span("process add")
    assert (process.kind.name, process.parent_id) == ("INTERNAL", recorded.span("work").span_id)
    assert process.attributes == {"celery.task_name": "add", "celery.retries": 0, "celery.state": "SUCCESS"}
    assert recorded.span("inside").parent_id == process.span_id
    assert counted(recorded, "insitu.task.duration", task="add", state="SUCCESS") == 1
    assert "insitu.task.wait" not in {family.name for family in recorded.runtime.collect()}


@pytest.mark.parametrize(
    ("task", "raised", "state", "errors"), [(fail, ValueError, "FAILURE", ["ValueError"]), (flaky, Retry, "RETRY", [])]
)
def test_an_eager_task_that_raises_into_its_caller_has_ended_as_any_other(
    recorded, monkeypatch, task, raised, state, errors
):
    monkeypatch.setitem(app.conf, "task_eager_propagates", True)
    with pytest.raises(raised):
        task.apply()
    assert recorded.span(f"process {task.name}").attributes["celery.state"] == state
    assert [error.type for error in recorded.errors] == errors
    assert insitu.trace_id() == ""


def test_an_eager_task_tries_again_at_once(recorded):
    flaky.apply()
    assert [span.attributes["celery.state"] for span in runs_of(recorded)] == ["RETRY", "FAILURE"]
    assert [error.type for error in recorded.errors] == ["ValueError"]


def test_tasks_within_a_task_are_its_children_or_nothing(recorded):
    result_of(outer)
    spans = {span.name: span for span in ended(recorded, 2)}
    assert spans["process add"].parent_id == spans["process outer"].span_id
    assert {span.trace.trace_id for span in recorded.spans} == {spans["process outer"].trace.trace_id}


def test_a_task_that_ends_its_process_is_seen_to_be_ended(recorded):
    with pytest.raises(SystemExit):
        run(leave)
    process = recorded.span("process leave")
    assert (process.attributes["celery.state"], process.status_code, recorded.errors) == ("TERMINATED", 0, [])
    assert insitu.trace_id() == ""


@pytest.mark.parametrize("error", [TimeLimitExceeded(3), WorkerLostError("killed")])
def test_a_task_that_is_lost_with_its_process_is_an_error_of_the_workers_main_process(recorded, error):
    tell = {"args": (), "kwargs": {}, "traceback": None, "einfo": None}
    task_failure.send(sender=add, task_id="17", exception=error, **tell)
    task_failure.send(sender=add, task_id="17", exception=ValueError("the task's own, recorded where it ran"), **tell)
    (lost,) = recorded.errors
    assert lost.type == f"billiard.exceptions.{type(error).__name__}"
    assert lost.attributes == {"celery.task_name": "add", "messaging.message.id": "17"}


def test_a_trace_that_is_not_sampled_travels_as_such_and_only_its_numbers_and_errors_stay(hooked):
    with recording(sample=0) as recorded:
        result_of(add, 1)
        result_of(fail)
        until(lambda: counted(recorded, "insitu.task.duration") == 2, what="two runs")
        assert seen[0]["traceparent"].endswith("-02")
        assert recorded.spans == []
        assert [error.type for error in recorded.errors] == ["ValueError"]
        assert recorded.point("insitu.task.published", {"task": "add"}).value == 1


def test_after_shutdown_tasks_are_untouched(hooked):
    with recording():
        insitu.shutdown()
        assert result_of(add, 1) == 1
        assert seen == [{}]


def test_our_own_traffic_is_not_traced(recorded):
    token = context.attach(context.set_value(SUPPRESS_KEY, value=True))
    try:
        app.send_task("elsewhere.resize", queue="pictures")
    finally:
        context.detach(token)
    assert recorded.spans == []


def test_a_fault_of_ours_is_swallowed(hooked, monkeypatch):
    def broken(*_):
        raise RuntimeError("ours")

    with recording(strict=False) as recorded:
        for name in ("_address", "_begin", "_note"):
            monkeypatch.setattr(adapter, name, broken)
        assert result_of(add, 2, 3) == 5
        assert recorded.errors == []
        monkeypatch.undo()


def test_opentelemetrys_instrumentation_of_celery_replaces_ours(recorded):
    instrumentor = CeleryInstrumentor()
    instrumentor.instrument()
    try:
        result_of(add, 1)
        until(lambda: len([s for s in recorded.spans if s.kind.name in ("PRODUCER", "CONSUMER")]) == 2, what="spans")
    finally:
        instrumentor.uninstrument()
    kinds = [span for span in recorded.spans if span.kind.name != "INTERNAL"]
    assert {span.scope.name for span in kinds} == {"opentelemetry.instrumentation.celery"}


def test_what_a_workers_loop_does_in_another_thread_as_it_ends_is_its_own(recorded):
    hub, told = Hub(), []
    hub.timer.call_after(0, lambda: told.append(context.get_value(SUPPRESS_HTTP_KEY)))
    thread = threading.Thread(target=lambda: until(lambda: hub.fire_timers() and told))
    thread.start()
    thread.join()
    assert told == [True]
