import gc
import time
import traceback
import weakref

import pytest

import insitu
from insitu.core.records import Error
from insitu.core.stacktrace import format_error
from insitu.signals import errors
from insitu.testing import recording


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


def raised(make):
    try:
        make()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class Unprintable(Exception):
    __str__ = __repr__ = lambda self: 1 / 0


class Local:
    pass


# --- the application's exception is the application's ---


@pytest.mark.parametrize(
    "manager",
    [lambda: insitu.span("a"), lambda: insitu.signals.tracing.provider.get_tracer("t").start_as_current_span("a")],
)
def test_an_exception_that_cannot_be_printed_reaches_its_own_handler(manager):
    reached = 0
    with recording(strict=False) as recorded:
        for _ in range(100):
            try:
                with manager():
                    raise Unprintable
            except Unprintable as error:
                reached += error.__context__ is None
        assert len(recorded.spans) == 100
        assert {span.status_code for span in recorded.spans} == {Error}
        assert recorded.errors[0].message == "<unprintable Unprintable>"
    print(f"{reached} of 100 reached their handler")
    assert reached == 100


def test_nothing_of_the_exception_is_held(recorded):
    gone = []

    def fail():
        local = Local()
        gone.append(weakref.ref(local))
        raise ValueError("text")

    with pytest.raises(ValueError, match="text"), insitu.span("a"):
        fail()
    insitu.capture(raised(fail))
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert len(recorded.errors) == 2


# --- what a record says ---


def test_a_record_reads_as_pythons_own_traceback():
    def inner():
        raise KeyError("k")

    def outer():
        try:
            inner()
        except KeyError as error:
            raise LookupError("not found") from error

    error = raised(outer)
    expected = [line for line in traceback.format_exception(error) if not line.lstrip().startswith("^")]
    text = "".join(
        line + "\n" for line in "".join(expected).splitlines() if not set(line.strip()) <= set("^~") or not line.strip()
    )
    assert format_error(errors.describe(error)) == text


def test_causes_contexts_and_members_are_followed():
    def caused():
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise ValueError("outer") from error

    def during():
        try:
            raise KeyError("context")
        except KeyError:
            raise ValueError("outer")  # noqa: B904

    def hidden():
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("outer") from None

    assert [(link.relation, link.message) for link in errors.describe(raised(caused)).chain] == [("cause", "'cause'")]
    assert [(link.relation, link.message) for link in errors.describe(raised(during)).chain] == [
        ("context", "'context'")
    ]
    assert errors.describe(raised(hidden)).chain == []
    group = errors.describe(ExceptionGroup("several", [ValueError("a"), KeyError("b")]))
    assert [(link.relation, link.type, link.message) for link in group.chain] == [
        ("member", "ValueError", "a"),
        ("member", "KeyError", "'b'"),
    ]


def test_a_circle_of_causes_ends():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert format_error(errors.describe(first)).count("ValueError: ") == 2


def test_a_chain_of_three_thousand_is_short_and_quick():
    error = ValueError("0")
    for number in range(1, 3_000):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    group = ValueError("leaf")
    for number in range(500):
        group = ExceptionGroup(str(number), [group])
    for given in (error, group):
        spent, text = [], ""
        for _ in range(3):
            began = time.thread_time()  # what others do on the machine does not count
            text = format_error(errors.describe(given))
            spent.append(time.thread_time() - began)
        print(f"{min(spent) * 1000:.2f} ms, {len(text.encode()):,} bytes")
        assert min(spent) <= 0.020
        assert len(text.encode()) <= 64 * 1024
        assert given.args[0] in text


def test_an_endless_recursion_is_kept_by_its_ends():
    def endless(depth):
        return endless(depth + 1)

    record = errors.describe(raised(lambda: endless(0)))
    assert (record.type, len(record.frames)) == ("RecursionError", errors.FRAMES)
    assert record.omitted > 800
    assert record.frames[0].code.co_name == "raised"
    assert len(format_error(record)) < 64 * 1024


def test_a_huge_message_is_cut():
    assert len(errors.describe(ValueError("x" * 10_000_000)).message) == errors.MESSAGE


def test_a_type_is_named_as_the_conventions_say():
    assert errors.type_name(ValueError()) == "ValueError"
    assert errors.type_name(Unprintable()) == f"{__name__}.Unprintable"


# --- capture and message ---


def test_a_captured_error_belongs_to_the_current_span(recorded):
    with insitu.bind(user="u1"), insitu.span("a") as span:
        insitu.capture(ValueError("text"), order=3)
    (error,) = recorded.errors
    assert (error.type, error.message, error.handled) == ("ValueError", "text", True)
    assert (error.trace_id, error.span_id) == (span.trace.trace_id, span.span_id)
    assert recorded.span("a").events[0].attributes == {"order": 3}
    assert recorded.span("a").status_code != Error


def test_an_error_outside_of_a_trace_is_a_record_of_its_own(recorded):
    with insitu.bind(user="u1"):
        insitu.capture(ValueError("text"), order=3)
    (error,) = recorded.errors
    assert (error.trace_id, error.attributes) == (0, {"user.id": "u1", "order": 3})


def test_an_error_in_a_trace_that_is_not_sampled_is_not_lost():
    with recording(sample=0.0) as recorded:
        with pytest.raises(ValueError, match="text"), insitu.span("a"):
            insitu.capture(KeyError("handled"))
            raise ValueError("text")
        assert recorded.spans == []
        assert [error.type for error in recorded.errors] == ["KeyError"]


def test_errors_are_counted_by_type_and_the_types_are_bounded(recorded):
    before = {point.labels["error.type"]: point.value for point in recorded.family("insitu.errors").points}
    for number in range(1_100):
        insitu.capture(type(f"Error{number}", (Exception,), {"__module__": "builtins"})())
    after = {point.labels["error.type"]: point.value for point in recorded.family("insitu.errors").points}
    assert len(after) <= errors.TYPES + 1
    assert sum(after.values()) - sum(before.values()) == 1_100


def test_secrets_in_messages_do_not_reach_the_record(recorded):
    insitu.capture(ValueError("cannot reach https://shop:hunter2secret@db.example/x?token=abcdef0123456789"))
    assert "hunter2secret" not in recorded.errors[0].message
    assert "abcdef0123456789" not in recorded.errors[0].message


@pytest.mark.parametrize(("level", "severity"), [("debug", 5), ("WARNING", 13), ("critical", 21), ("odd", 9)])
def test_a_message_has_its_level_and_its_trace(recorded, level, severity):
    with insitu.span("a") as span:
        insitu.message("out of stock", level=level, item=3)
    (record,) = recorded.logs
    assert (record.body, record.severity, record.level) == ("out of stock", severity, level.upper())
    assert (record.attributes, record.trace_id, record.span_id) == ({"item": 3}, span.trace.trace_id, span.span_id)


def test_what_is_no_exception_is_not_captured(recorded):
    for value in (None, "text", ValueError):
        insitu.capture(value)
    assert recorded.errors == []
