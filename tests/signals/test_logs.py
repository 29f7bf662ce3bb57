import io
import json
import logging
import logging.config
import time

import pytest
from opentelemetry import _logs as api
from opentelemetry import context as otel_context
from opentelemetry._logs import SeverityNumber

import insitu
from insitu.core import context, guard
from insitu.runtime import requests
from insitu.signals.logs import severity
from insitu.testing import recording

logger = logging.getLogger("tests.shop")
before_init = api.get_logger("made before init")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    logging.Logger.manager._clear_cache()
    yield
    logging.Logger.manager._clear_cache()


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


# --- the standard library ---


def test_a_record_is_taken_with_its_place_level_and_arguments(recorded):
    logger.warning("%s items for %r", 3, "Zoë")
    (record,) = recorded.logs
    assert (record.body, record.severity, record.level, record.logger) == (
        "3 items for 'Zoë'",
        13,
        "WARNING",
        "tests.shop",
    )
    assert record.fields()["code.file.path"] == __file__
    assert record.fields()["code.function.name"] == "test_a_record_is_taken_with_its_place_level_and_arguments"
    assert abs(record.timestamp - time.time_ns()) < 5e9


def test_extras_become_fields_and_exceptions_an_error(recorded):
    try:
        raise LookupError("nothing there")
    except LookupError:
        logger.exception("failed", extra={"order": 3, "cart": {"items": [1]}, "none": None})
    (record,) = recorded.logs
    assert (record.attributes["order"], record.attributes["cart"], "none" in record.attributes) == (
        3,
        {"items": (1,)},
        False,
    )
    assert (record.error.type, record.error.message) == ("LookupError", "nothing there")
    assert recorded.errors == []


@pytest.mark.parametrize("arguments", [("%d", "text"), ("%s %s", 1), ("%q", 1), ("no place", 1)])
def test_wrong_arguments_are_shown_and_not_raised(arguments, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with recording(strict=False) as recorded:
        logger.error(*arguments)
        (record,) = recorded.logs
    assert record.body.startswith(arguments[0])
    assert str(arguments[1]) in record.body


@pytest.mark.parametrize(
    ("level", "number"),
    [(5, 1), (10, 5), (15, 7), (20, 9), (25, 11), (30, 13), (40, 17), (45, 19), (50, 21), (60, 21), (1, 1)],
)
def test_levels_of_ones_own_lie_between_the_standard_ones(recorded, level, number):
    assert severity(level) == number
    logging.getLogger("tests.shop").log(level, "text")
    assert [record.severity for record in recorded.logs] == [number] * (level >= 10)


def test_a_record_has_the_trace_and_the_bound_fields(recorded):
    with insitu.span("outer") as outer, insitu.bind(user="u1", plan="pro"):
        logger.info("inside")
        insitu.log.info("direct", order=3)
    logger.info("outside")
    inside, direct, outside = recorded.logs
    assert (inside.trace_id, inside.span_id, inside.flags & 1) == (outer.trace.trace_id, outer.span_id, 1)
    assert inside.attributes.items() >= {"user.id": "u1", "plan": "pro"}.items()
    assert direct.attributes == {"user.id": "u1", "plan": "pro", "order": 3}
    assert (outside.trace_id, "user.id" in outside.fields()) == (0, False)


def test_each_record_is_taken_once_however_many_handlers_and_parents_see_it(recorded):
    handlers = [
        (logging.getLogger(name), logging.StreamHandler(io.StringIO()))
        for name in ("", "tests", "tests.shop", "tests.shop")
    ]
    for owner, handler in handlers:
        owner.addHandler(handler)
    try:
        logger.warning("once")
    finally:
        for owner, handler in handlers:
            owner.removeHandler(handler)
    assert [record.body for record in recorded.logs] == ["once"]
    assert [handler.stream.getvalue() for _, handler in handlers] == ["once\n"] * 4


def test_records_that_a_level_a_filter_or_disable_keeps_back_are_not_taken(recorded, monkeypatch):
    monkeypatch.setattr(logger, "filters", [lambda record: "secret" not in record.msg])
    logger.setLevel(logging.INFO)
    logger.debug("too low")
    logger.info("secret")
    logger.info("let through")
    assert [record.body for record in recorded.logs] == ["let through"]


def seen_by_the_host(with_insitu):
    """What handlers see of some calls, and what the loggers look like after."""
    stream, host = io.StringIO(), logging.getLogger("tests.host")
    configuration = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"f": {"format": "%(levelname)s %(name)s %(funcName)s %(message)s %(args)s"}},
        "handlers": {"h": {"class": "logging.StreamHandler", "stream": stream, "formatter": "f"}},
        "loggers": {"tests.host": {"handlers": ["h"], "level": "INFO", "propagate": False}},
    }

    def play():
        logging.config.dictConfig(configuration)
        host.info("%s and %s", 1, [2])
        host.debug("not shown")
        try:
            raise ValueError("text")
        except ValueError:
            host.exception("failed")
        return stream.getvalue(), len(logging.getLogger().handlers), logging.getLogger().level, host.handlers[0].level

    if not with_insitu:
        return play()
    with recording():
        return play()


def test_the_hosts_handlers_see_exactly_what_they_saw_before():
    insitu.shutdown()
    assert seen_by_the_host(with_insitu=True) == seen_by_the_host(with_insitu=False)


def test_shutdown_takes_the_wrap_away_and_somebody_elses_stays():
    insitu.shutdown()
    original = logging.Logger.callHandlers
    with recording():
        assert logging.Logger.callHandlers is not original
    assert logging.Logger.callHandlers is original
    with recording() as recorded:
        ours = logging.Logger.callHandlers
        logging.Logger.callHandlers = lambda self, record: ours(self, record)
    try:
        with recording() as recorded:
            logger.warning("through both")
            assert [record.body for record in recorded.logs] == ["through both"]
    finally:
        logging.Logger.callHandlers = original
        insitu.signals.logs.logs._original = None


# --- what is not taken ---


def test_nothing_is_taken_where_insitu_works_or_a_route_is_excluded(recorded):
    token = otel_context.attach(otel_context.set_value(context.SUPPRESS_KEY, value=True))
    logger.warning("suppressed")
    insitu.log.warning("suppressed")
    otel_context.detach(token)
    token = requests.hide()
    logger.warning("hidden")
    insitu.log.warning("hidden")
    otel_context.detach(token)
    assert recorded.logs == []


def test_insitus_own_lines_do_not_feed_themselves(recorded):
    class Exporter:
        """A sink that logs for each record that it gets, through a logger of insitu's and through its own library."""

        def accept(self, records):
            for _ in records:
                logging.getLogger("insitu").warning("sent")
                logging.getLogger("insitu.exporters.otlp").warning("sent")

    recorded.runtime.pipeline.sinks.append(Exporter())
    logger.warning("first")
    for _ in range(60):
        recorded.runtime.pipeline.drain(1.0)
    print(f"{len(recorded.logs) - 1} records grown out of 1 over 60 rounds")
    assert len(recorded.logs) == 1


# --- insitu.log ---


def test_the_structured_logger_takes_fields_of_every_kind(recorded):
    insitu.log.info("order placed", order=3, price=19.9, paid=True, tags=["a"], none=None, item=object, big="x" * 9_000)
    (record,) = recorded.logs
    assert (record.body, record.severity, record.logger) == ("order placed", 9, "app")
    assert {key: record.attributes[key] for key in ("order", "price", "paid", "tags")} == {
        "order": 3,
        "price": 19.9,
        "paid": True,
        "tags": ("a",),
    }
    assert "none" not in record.attributes
    assert len(record.attributes["big"]) == 8_192


@pytest.mark.parametrize(
    ("method", "number"), [("debug", 5), ("info", 9), ("warning", 13), ("error", 17), ("critical", 21)]
)
def test_each_level_has_its_number(recorded, method, number):
    getattr(insitu.log.named("shop"), method)("text")
    assert [(record.severity, record.level, record.logger) for record in recorded.logs] == [
        (number, method.upper(), "shop")
    ]


def test_an_exception_being_handled_is_added(recorded):
    try:
        raise ValueError("text")
    except ValueError:
        insitu.log.exception("failed")
    insitu.log.exception("nothing failed")
    assert [record.error and record.error.type for record in recorded.logs] == ["ValueError", None]


def test_records_are_counted_by_level(recorded):
    before = {point.labels["level"]: point.value for point in recorded.family("insitu.log_records").points}
    for number in range(100):
        insitu.log.info("text")
        logger.log(30, "text %d", number)
    after = {point.labels["level"]: point.value for point in recorded.family("insitu.log_records").points}
    assert {level: after[level] - before.get(level, 0) for level in ("info", "warning")} == {
        "info": 100,
        "warning": 100,
    }


# --- OpenTelemetry's Logger ---


def test_opentelemetrys_logger_is_ours(recorded):
    with insitu.span("a") as span:
        before_init.emit(
            body={"a": [1]}, severity_number=SeverityNumber.WARN2, attributes={"k": 1}, event_name="cart.emptied"
        )
        before_init.emit(api.LogRecord(timestamp=5, body="text", severity_text="odd"))
    first, second = recorded.logs
    assert (first.body, first.severity, first.level, first.attributes) == ({"a": (1,)}, 14, "WARN2", {"k": 1})
    assert (first.event_name, first.trace_id, first.logger) == ("cart.emptied", span.trace.trace_id, "made before init")
    assert (second.timestamp, second.body, second.level, second.severity) == (5, "text", "odd", 0)


def test_loggers_work_again_after_a_shutdown():
    for _ in range(2):
        with recording() as recorded:
            assert before_init.enabled()
            before_init.emit(body="text")
            insitu.log.info("text")
            assert len(recorded.logs) == 2
        before_init.emit(body="lost")


# --- injection ---

HOSTILE = [
    "a\nb",
    "a\r\nERROR forged",
    "\x1b[31mred\x1b[0m",
    "a\u2028b\u2029c\x85d",
    "\x00\x07\x08\x7f",
    "\ud800",
    '"}\n{"a":"b',
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_one_event_is_one_line_without_raw_control_characters(text, tmp_path):
    path = tmp_path / "log"
    with recording(threads=False, log_output=str(path)):
        insitu.log.info(text, field=text)
        logger.warning("%s", text, extra={"field": text})
        insitu.message(text, field=text)
        insitu.flush(5.0)
    written = path.read_bytes().decode("utf-8")
    lines = written.split("\n")[:-1]
    controls = sum(ord(letter) < 32 or ord(letter) in (0x7F, 0x85, 0x2028, 0x2029) for line in lines for letter in line)
    print(f"{len(lines)} lines for 3 events, {controls} raw control characters")
    assert [isinstance(json.loads(line), dict) for line in lines] == [True] * 3
    assert (len(written.splitlines()), controls) == (3, 0)


def test_a_hostile_record_of_another_library_does_not_stop_the_hosts_logging():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        with recording(strict=False):
            logger.handle(logging.makeLogRecord({"name": None, "msg": "text", "levelno": 30, "created": None}))
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "text\n"
    assert guard.counts
