import asyncio
import contextvars
import functools
import gc
import inspect
import logging

import pytest
from opentelemetry import trace as api

import insitu
from insitu.core.records import Error, Unset
from insitu.testing import FakeClock, recording


@pytest.fixture
def recorded():
    with recording() as started:
        yield started


def current():
    return getattr(api.get_current_span(), "name", None)


# --- what stays as it was ---


def plain(first: int, /, second: str = "b", *rest: float, key: bool = False, **others: object) -> tuple[object, ...]:
    """Say what came in."""
    return first, second, rest, key, others


async def coroutine(first: int, *, key: str = "a") -> int:
    return first


def generator(count: int):
    yield from range(count)


async def async_generator(count: int):
    for number in range(count):
        yield number


@pytest.mark.parametrize(
    "function", [plain, coroutine, generator, async_generator], ids=lambda function: function.__name__
)
def test_frameworks_see_the_same_function(function):
    traced = insitu.trace(function)
    assert traced is not function
    for question in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert question(traced) == question(function)
    assert asyncio.iscoroutinefunction(traced) == asyncio.iscoroutinefunction(function)
    assert inspect.signature(traced) == inspect.signature(function)
    assert inspect.get_annotations(traced, eval_str=True) == inspect.get_annotations(function, eval_str=True)
    assert (traced.__name__, traced.__doc__, traced.__module__) == (function.__name__, function.__doc__, __name__)
    assert traced.__wrapped__ is function


def test_arguments_and_results_pass_unchanged(recorded):
    assert insitu.trace(plain)(1, "c", 2.0, 3.0, key=True, other=None) == plain(1, "c", 2.0, 3.0, key=True, other=None)
    assert asyncio.run(insitu.trace(coroutine)(5)) == 5
    assert list(insitu.trace(generator)(3)) == [0, 1, 2]
    assert [span.name for span in recorded.spans] == ["plain", "coroutine", "generator"]
    assert recorded.span("plain").attributes == {"code.function.name": f"{__name__}.plain"}


def test_a_name_and_attributes_can_be_given(recorded):
    @insitu.trace(name="load cart", tier="gold")
    def load():
        pass

    load()
    load()
    assert [span.name for span in recorded.spans] == ["load cart", "load cart"]
    assert recorded.spans[0].attributes["tier"] == "gold"
    assert recorded.spans[0].attributes is not recorded.spans[1].attributes


def test_methods_of_every_kind_and_classes_are_traced(recorded):
    @insitu.trace
    class Cart:
        size = 3

        def __init__(self):
            self.items = [1]

        def method(self):
            return self.items, current()

        @staticmethod
        def static(number):
            return number, current()

        @classmethod
        def of_class(cls):
            return cls, current()

        @property
        def prop(self):
            return current()

        def _private(self):
            return current()

        async def coroutine(self):
            return current()

        class Inner:
            pass

    class Bigger(Cart):
        def method(self):
            return super().method()

    cart = Cart()
    assert cart.method()[0] == [1]
    assert cart.method()[1].endswith("Cart.method")
    assert Cart.static(4)[0] == 4
    assert cart.static(4)[1].endswith("Cart.static")
    assert Bigger.of_class()[0] is Bigger
    assert Cart.of_class()[1].endswith("Cart.of_class")
    assert asyncio.run(cart.coroutine()).endswith("Cart.coroutine")
    assert (cart.prop, cart._private()) == (None, None)
    assert Bigger().method()[1].endswith("Cart.method")
    assert isinstance(cart, Cart)
    assert Cart.size == 3
    assert recorded.spans


def test_partials_and_callable_objects_are_traced(recorded):
    class Handler:
        def __call__(self, number):
            return number

    assert insitu.trace(functools.partial(plain, 1))("x")[0] == 1
    assert insitu.trace(Handler())(2) == 2
    assert len(recorded.spans) == 2


@pytest.mark.parametrize("value", [property(plain), 5, None, "text"], ids=str)
def test_what_cannot_be_traced_is_given_back(value):
    assert insitu.trace(value) is value or callable(insitu.trace(value))


# --- how a call ends ---


@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator"])
def test_an_exception_passes_as_it_is_and_marks_the_span(recorded, kind):
    error = LookupError("nothing there")

    def function():
        raise error

    async def coroutine():
        raise error

    def generator():
        yield 1
        raise error

    async def async_generator():
        yield 1
        raise error

    async def consume(source):
        async for _ in source:
            pass

    calls = {
        "function": insitu.trace(name="call")(function),
        "coroutine": lambda: asyncio.run(insitu.trace(name="call")(coroutine)()),
        "generator": lambda: list(insitu.trace(name="call")(generator)()),
        "async generator": lambda: asyncio.run(consume(insitu.trace(name="call")(async_generator)())),
    }
    with pytest.raises(LookupError) as caught:
        calls[kind]()
    assert caught.value is error
    span = recorded.span("call")
    assert (span.status_code, span.status_text) == (Error, "LookupError: nothing there")
    assert recorded.errors[0].type == "LookupError"
    assert recorded.errors[0].frames[-1].code.co_name == kind.replace(" ", "_")


def test_a_cancelled_task_ends_its_spans_and_is_no_error(recorded):
    @insitu.trace(name="task")
    async def task(started):
        with insitu.span("inner"):
            started.set()
            await asyncio.sleep(60)

    async def main():
        started = asyncio.Event()
        running = asyncio.create_task(task(started))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    for name in ("task", "inner"):
        span = recorded.span(name)
        assert span.end_time
        assert span.attributes["insitu.cancelled"] is True
        assert (span.status_code, span.events) == (Unset, None)
    print(f"2 of 2 spans ended and marked, {len(recorded.errors)} errors")
    assert recorded.errors == []


def test_a_timeout_of_the_application_is_an_error(recorded):
    @insitu.trace(name="slow")
    async def slow():
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(slow())
    assert recorded.span("slow").status_code == Error


# --- generators ---


def test_a_generator_keeps_its_protocol(recorded):
    @insitu.trace
    def echo():
        received, caught = [], []
        while True:
            try:
                value = yield len(received)
            except KeyError as error:
                caught.append(error)
                continue
            if value is None:
                return received, len(caught)
            received.append(value)

    def delegating():
        return (yield from echo())

    for make in (echo, delegating):
        running = make()
        assert next(running) == 0
        assert running.send("a") == 1
        assert running.throw(KeyError("k")) == 1
        assert running.send("b") == 2
        with pytest.raises(StopIteration) as ended:
            next(running)
        assert ended.value.value == (["a", "b"], 1)
        with pytest.raises(StopIteration):
            next(running)
    assert [(span.status_code, span.events) for span in recorded.spans] == [(Unset, None)] * 2


def test_closing_a_generator_runs_its_finally_and_ends_the_span(recorded):
    closed = []

    @insitu.trace(name="rows")
    def rows():
        try:
            yield 1
        finally:
            closed.append(current())

    running = rows()
    next(running)
    running.close()
    assert closed == ["rows"]
    span = recorded.span("rows")
    assert (span.status_code, "insitu.cancelled" in span.attributes) == (Unset, False)


def test_a_span_of_a_generator_is_current_only_while_it_runs(recorded):
    @insitu.trace(name="rows")
    def rows():
        for number in range(3):
            with insitu.span("inside"):
                assert current() == "inside"
            yield number, current()

    with insitu.span("consumer"):
        source = rows()
        assert current() == "consumer"
        for _, inside in source:
            assert (inside, current()) == ("rows", "consumer")
            with insitu.span("between"):
                pass
    assert current() is None
    spans = {span.name: span for span in recorded.spans}
    assert spans["rows"].parent_id == spans["consumer"].span_id
    assert spans["inside"].parent_id == spans["rows"].span_id
    assert spans["between"].parent_id == spans["consumer"].span_id


def test_a_generators_span_lasts_from_its_first_value_to_its_end():
    clock = FakeClock()
    with recording(clock=clock) as recorded:
        source = insitu.trace(generator)(2)
        clock.advance(5)
        next(source)
        clock.advance(1)
        list(source)
        assert recorded.span("generator").duration == 1_000_000_000


@pytest.fixture
def no_errors(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_abandoned_generator_logs_nothing_and_leaves_the_parent_current(recorded, no_errors):
    with insitu.span("consumer"):
        for _ in insitu.trace(generator)(10):
            assert current() == "consumer"
            break
        gc.collect()
        assert current() == "consumer"
    assert current() is None
    assert recorded.span("generator").end_time


def test_an_async_generator_closed_in_another_context_logs_nothing(recorded, no_errors):
    async def main():
        source = insitu.trace(async_generator)(10)
        with insitu.span("consumer"):
            assert await anext(source) == 0
            assert current() == "consumer"
            await asyncio.create_task(source.aclose(), context=contextvars.copy_context())
            assert current() == "consumer"
        assert current() is None

    asyncio.run(main())
    assert recorded.span("async_generator").end_time


def test_an_async_generator_that_the_loop_finalises_logs_nothing(recorded, no_errors):
    async def first():
        async for _ in insitu.trace(async_generator)(10):
            return current()
        return None

    async def main():
        with insitu.span("consumer"):
            assert await first() == "consumer"
            gc.collect()
            await asyncio.sleep(0)
            assert current() == "consumer"

    asyncio.run(main())
    gc.collect()
    print("0 ERROR lines; the parent current before and after")
    assert {span.name for span in recorded.spans} == {"consumer", "async_generator"}


def test_an_async_generator_keeps_its_protocol(recorded):
    @insitu.trace(name="echo")
    async def echo():
        received = []
        while True:
            try:
                received.append((yield len(received)))
            except KeyError:
                received.append("thrown")

    async def main():
        source = echo()
        assert await anext(source) == 0
        assert await source.asend("a") == 1
        assert await source.athrow(KeyError("k")) == 2
        await source.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(source)

    asyncio.run(main())
    assert recorded.span("echo").status_code == Unset


def test_closing_an_async_generator_runs_its_finally_at_once(recorded):
    closed = []

    @insitu.trace(name="rows")
    async def rows():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(current())

    async def main():
        source = rows()
        await anext(source)
        await source.aclose()
        assert closed == ["rows"]

    asyncio.run(main())
    assert recorded.span("rows").end_time
