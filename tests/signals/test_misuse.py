import decimal
import logging
import traceback
from collections.abc import Mapping

import pytest
from opentelemetry import context as otel_context
from opentelemetry.trace import INVALID_SPAN, SpanKind, Status, StatusCode, set_span_in_context

import insitu
from insitu.core import guard
from insitu.signals.logs import LoggerProvider
from insitu.signals.meter import MeterProvider
from insitu.signals.metrics import registry
from insitu.signals.tracing import provider
from insitu.testing import recording


@pytest.fixture(autouse=True)
def unhooked(monkeypatch):
    """Whatever is started here leaves the libraries of this process as they are."""
    monkeypatch.setattr("wrapt.register_post_import_hook", lambda *_: None)


def refuse(*_, **__):
    raise RuntimeError("this object does nothing")


REFUSED = "str repr hash eq bool len iter next float int index lt gt call enter exit format contains getitem".split()
Hostile = type("Hostile", (), {f"__{name}__": refuse for name in REFUSED})
HostileText = type("HostileText", (str,), {f"__{name}__": refuse for name in REFUSED if name not in ("eq", "hash")})
Masked = type("Masked", (), {"__class__": property(refuse), "__getattr__": refuse})


class HostileMapping(Mapping):
    __getitem__ = __iter__ = __len__ = keys = values = items = refuse


class HostileError(Exception):
    __str__ = __repr__ = refuse


recursive_list = []
recursive_list.append(recursive_list)
recursive_dict = {}
recursive_dict["again"] = recursive_dict

VALUES = {
    "none": None,
    "zero": 0,
    "negative": -1,
    "2**70": 2**70,
    "nan": float("nan"),
    "infinity": float("inf"),
    "decimal": decimal.Decimal("sNaN"),
    "empty": "",
    "huge text": "x" * 1_000_000,
    "surrogate": "\ud800",
    "control": "a\r\n\x00\x1b",
    "bytes": b"\xff\xfe",
    "list": [1, None, [2]],
    "recursive list": recursive_list,
    "recursive dict": recursive_dict,
    "odd keys": {1: 2, None: 3, ("a",): 4, "\ud800": "\ud800"},
    "hostile in a dict": {"key": Hostile()},
    "hostile in a list": [Hostile()],
    "unhashable in a dict": {"key": {"inner": []}},
    "hostile": Hostile(),
    "hostile text": HostileText("text"),
    "hostile mapping": HostileMapping(),
    "hostile error": HostileError("text"),
    "masked": Masked(),
    "object": object(),
    "type": int,
    "function": refuse,
    "generator": (number for number in range(3)),
    "error": ValueError("text"),
    "status": Status(StatusCode.ERROR, "text"),
    "kind": SpanKind.SERVER,
    "span": INVALID_SPAN,
    "context": otel_context.Context(),
    "hostile span in a context": set_span_in_context(Hostile()),
}
HOSTILE = pytest.mark.parametrize("name", VALUES)  # pytest itself cannot hold such values


def function(*_, **__):
    return 1


def inside(manager):
    with manager:
        pass


def failing(manager, error):
    try:
        with manager:
            raise error
    except type(error) as caught:
        assert caught is error


def spans_of(make):
    """Every method of a span, with the value in every place; each on a span of its own."""
    return [
        lambda v: make().set_attribute("key", v),
        lambda v: make().set_attribute(v, "value"),
        lambda v: make().set_attributes(v),
        lambda v: make().set_attributes({"key": v}),
        lambda v: make().add_event(v),
        lambda v: make().add_event("event", v),
        lambda v: make().add_event("event", {"key": v}, v),
        lambda v: make().add_event("event", timestamp=v),
        lambda v: make().add_link(v),
        lambda v: make().add_link(INVALID_SPAN.get_span_context(), v),
        lambda v: make().record_exception(v),
        lambda v: make().record_exception(ValueError(), v, v, v),
        lambda v: make().update_name(v),
        lambda v: make().set_status(v),
        lambda v: make().set_status(v, v),
        lambda v: make().set_status(StatusCode.ERROR, v),
        lambda v: make().__exit__(type(v), v, None),
        lambda v: (make().is_recording(), make().get_span_context()),
        lambda v: make().end(v),
        lambda v: make().end(),
    ]


def of_insitu():
    counter, updown = insitu.counter("misused", labels=("plan",)), insitu.updown("misused_updown", labels=("plan",))
    gauge, histogram = insitu.gauge("misused_gauge", labels=("p",)), insitu.histogram("misused_histogram", labels="p")
    return [
        lambda v: insitu.trace(v),
        lambda v: insitu.trace(name=v)(function)(),
        lambda v: insitu.trace(key=v)(function)(),
        lambda v: inside(insitu.span(v)),
        lambda v: inside(insitu.span("name", key=v)),
        lambda v: failing(insitu.span("name", key=v), HostileError()),
        *spans_of(lambda: insitu.span("name").__enter__()),
        lambda v: insitu.span("never entered", key=v).__exit__(None, None, None),
        lambda v: insitu.counter(v).add(),
        lambda v: insitu.counter("a", labels=v).add(1),
        lambda v: insitu.counter("b", unit=v, help=v).add(1),
        lambda v: counter.add(v),
        lambda v: counter.add(1, plan=v),
        lambda v: counter.add(1, unknown=v),
        lambda v: updown.add(v, plan=v),
        lambda v: insitu.gauge(v, labels=v, unit=v, help=v).set(v),
        lambda v: gauge.set(v, p=v),
        lambda v: insitu.histogram(v, labels=v, bounds=v).record(1),
        lambda v: insitu.histogram("c", bounds=[v, v]).record(v),
        lambda v: histogram.record(v, p=v),
        lambda v: insitu.log.info(v),
        lambda v: insitu.log.warning("text", key=v),
        lambda v: insitu.log.exception(v, key=v),
        lambda v: insitu.log.named(v).error("text"),
        lambda v: insitu.capture(v),
        lambda v: insitu.capture(ValueError(), key=v),
        lambda v: insitu.capture(HostileError()),
        lambda v: insitu.message(v),
        lambda v: insitu.message("text", level=v, key=v),
        lambda v: inside(insitu.bind(user=v, other=v)),
        lambda v: insitu.trace_id(),
        lambda v: insitu.instrument(v) if not callable(v) else None,
    ]


def of_tracer():
    tracer = provider.get_tracer("misuse")
    return [
        lambda v: provider.get_tracer(v, v, v, v).start_span("name").end(),
        lambda v: provider.get_tracer("name", attributes={"key": v}),
        lambda v: tracer.start_span(v).end(),
        lambda v: tracer.start_span("name", context=v).end(),
        lambda v: tracer.start_span("name", kind=v, attributes=v, links=v, start_time=v).end(),
        lambda v: tracer.start_span("name", attributes={"key": v}, links=[v]).end(),
        lambda v: inside(tracer.start_as_current_span(v)),
        lambda v: inside(tracer.start_as_current_span("name", v, v, v, v, v, v, v, v)),
        lambda v: failing(tracer.start_as_current_span("name", attributes=v), HostileError()),
        lambda v: failing(tracer.start_span("name", attributes=v), HostileError()),
        lambda v: tracer.start_as_current_span("never entered").__exit__(None, None, None),
        lambda v: tracer.start_as_current_span(v)(function)(),
        *spans_of(lambda: tracer.start_span("name")),
        lambda v: provider.force_flush(v),
    ]


def of_meter():
    meters = MeterProvider(registry)
    meter = meters.get_meter("misuse")
    counter, updown = meter.create_counter("counter"), meter.create_up_down_counter("updown")
    gauge, histogram = meter.create_gauge("gauge"), meter.create_histogram("histogram")
    return [
        lambda v: meters.get_meter(v, v, v, v).create_counter("name").add(1),
        lambda v: meter.create_counter(v, v, v).add(1),
        lambda v: meter.create_up_down_counter(v, v, v).add(1),
        lambda v: meter.create_gauge(v, v, v).set(1),
        lambda v: meter.create_histogram(v, v, v, explicit_bucket_boundaries_advisory=v).record(1),
        lambda v: meter.create_histogram("h", explicit_bucket_boundaries_advisory=[v]).record(1),
        lambda v: meter.create_observable_counter(v, v, v, v),
        lambda v: meter.create_observable_gauge("name", [v]),
        lambda v: meter.create_observable_up_down_counter("name", [lambda options: v]),
        lambda v: meter.create_observable_up_down_counter("name", [lambda options: [v]]),
        lambda v: counter.add(v),
        lambda v: counter.add(1, v, v),
        lambda v: counter.add(1, {"key": v}),
        lambda v: updown.add(v, {"key": v}),
        lambda v: gauge.set(v, {"key": v}),
        lambda v: gauge.set(1, v),
        lambda v: histogram.record(v, {"key": v}),
        lambda v: histogram.record(1, v),
        lambda v: meters.force_flush(v),
    ]


alone = logging.Logger("misuse")  # below no other, so that no handler of the test runner sees it
alone.addHandler(logging.NullHandler())


def of_logger():
    loggers = LoggerProvider()
    logger = loggers.get_logger("misuse")
    return [
        lambda v: loggers.get_logger(v, v, v, v).emit(body="text"),
        lambda v: logger.emit(v),
        lambda v: logger.emit(body=v, severity_text=v, severity_number=v, attributes=v, timestamp=v),
        lambda v: logger.emit(body="text", attributes={"key": v}, event_name=v),
        lambda v: logger.emit(body="text", context=v),
        lambda v: logger.emit(body="text", exception=v),
        lambda v: logger.emit(unknown=v),
        lambda v: alone.error(v),
        lambda v: alone.error("text", extra={"key": v, 5: v}),
        lambda v: alone.handle(logging.makeLogRecord({"msg": v, "args": (v,), "levelno": 40})),
        lambda v: alone.handle(
            logging.makeLogRecord({"created": v, "exc_info": v, "name": v, "levelno": 40, "levelname": v})
        ),
    ]


SURFACES = {"insitu": of_insitu, "tracer": of_tracer, "meter": of_meter, "logger": of_logger}


class Seen(logging.Handler):
    """The messages that insitu itself logged."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """What a test leaves declared or, by a wrong order, current is gone after it."""
    with recording():
        pass  # the first start gives instruments made before it their place in the registry, which must stay
    monkeypatch.setattr(registry, "callbacks", list(registry.callbacks))
    monkeypatch.setattr(registry, "instruments", dict(registry.instruments))
    before = otel_context.get_current()
    yield
    otel_context.attach(before)


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    handler, logger = Seen(), logging.getLogger("insitu")
    logger.addHandler(handler)
    logger.propagate = False
    yield handler
    logger.removeHandler(handler)
    logger.propagate = True


def where(error):
    """The innermost line of insitu's own that an exception came through."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/insitu/" in frame.filename]
    return f"{own[-1].filename.rpartition('/')[2]}:{own[-1].lineno}" if own else ""


def call_all(surface, value):
    """Call everything; return how many raised, with what they raised."""
    raised = []
    made = SURFACES[surface]()
    for number, call in enumerate(made):
        before = otel_context.get_current()
        try:
            call(value)
        except Exception as error:
            raised.append(f"call {number}: {type(error).__name__}: {guard.render(error, 80)} {where(error)}")
        finally:
            otel_context.attach(before)
    return len(made), raised


@pytest.mark.parametrize("surface", SURFACES)
@HOSTILE
def test_no_misuse_raises_and_each_is_logged_once(surface, name, seen):
    value = VALUES[name]
    with recording(strict=False) as recorded:
        calls, raised = call_all(surface, value)
        assert list(recorded.runtime.collect())
        call_all(surface, value)
        assert raised == []
        # What was recorded is plain and can leave the process.
        recorded.runtime.pipeline.drain(5.0)
    print(f"{calls} calls, {len(raised)} raised, {len(seen.messages)} lines")
    assert max([seen.messages.count(message) for message in seen.messages], default=0) <= 1


@pytest.mark.parametrize("surface", SURFACES)
@HOSTILE
def test_no_misuse_raises_while_insitu_is_off(surface, name):
    value = VALUES[name]
    insitu.shutdown()
    assert call_all(surface, value)[1] == []


@HOSTILE
def test_no_misuse_of_the_start_and_the_end_raises(name, monkeypatch, tmp_path):
    value = VALUES[name]
    monkeypatch.chdir(tmp_path)
    insitu.shutdown()
    for options in ({"service": value}, {"unknown": value}, {"sample": value, "exporters": value, "libraries": value}):
        insitu.init(**{"exporters": (), "libraries": (), **options})
        insitu.flush(value)
        insitu.flush(timeout=0.0)
        insitu.shutdown(value)
        insitu.shutdown(timeout=0.0)


def test_wrong_orders_do_not_raise():
    with recording() as recorded:
        outer, inner = insitu.span("outer"), insitu.span("inner")
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        span = provider.get_tracer("misuse").start_span("twice")
        span.end()
        span.end()
        span.set_attribute("late", value=1)
        span.add_event("late")
        span.set_status(StatusCode.ERROR)
        span.update_name("late")
        span.record_exception(ValueError())
        ended = recorded.span("twice")
        assert (ended.attributes, ended.events, ended.status_code) == ({}, None, 0)
        assert recorded.span("inner").end_time
