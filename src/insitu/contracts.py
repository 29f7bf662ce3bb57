"""What every adapter owes to the application and to whoever reads the numbers, as tests.

class TestFlask(AdapterContract):
    templates = {"item": "/items/<int:number>", "boom": "/boom", ...}

    def application(self):
        app = Flask("shop")
        app.add_url_rule("/items/<int:number>", view_func=work.item)
        ...

    def ask(self, app, path, headers, pieces):
        ...
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from opentelemetry import trace as api

import insitu
from insitu.testing import recording

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from insitu.core.records import LocalTrace
    from insitu.testing import Recorded

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
"""A caller that samples."""
STREAMED = b"piece 0\npiece 1\npiece 2\n"
"""What /stream answers."""
_AT_ONCE = 16


class Answer(NamedTuple):
    """What a client got: the exception stands for an answer where the application's own reaches the server."""

    status: int
    body: bytes = b""
    error: BaseException | None = None


class work:  # noqa: N801 - a name space: `work.item` is what stands behind /items/{number}
    """What the application does behind each path; each returns or yields the text to answer."""

    @staticmethod
    def item(number: int) -> str:
        """Behind `/items/{number}`."""
        with insitu.span("load", number=number):
            insitu.log.info("loaded", number=number)
        return f"item {number}"

    @staticmethod
    def boom() -> str:
        """Behind `/boom`."""
        raise LookupError("boom")

    @staticmethod
    def thread() -> str:
        """Behind `/thread`: work in a thread that was given the context."""
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(work.item, 1))
        thread.start()
        thread.join()
        return "done"

    @staticmethod
    def stream() -> Iterator[bytes]:
        """Behind `/stream`: three pieces of eight bytes, each made when it is wanted."""
        for number in range(3):
            with insitu.span("piece"):
                piece = b"piece %d\n" % number
            yield piece

    waiting: ClassVar[threading.Event] = threading.Event()
    """Set once a request has come to `wait`."""

    @classmethod
    async def wait(cls) -> str:
        """Behind `/wait`, of an asynchronous framework: what nobody ever answers."""
        with insitu.span("wait"):
            cls.waiting.set()
            await asyncio.Event().wait()
        return "never"


class AdapterContract:
    """Inherit from it in a class that pytest collects, and say how the application is made and asked.

    Attributes:
        templates: of the routes `item`, `boom`, `teapot`, `stream` and `thread`; none where the adapter cannot know.
        told_outside: whether an instrumented application above learns the template, too.

    """

    templates: ClassVar[Mapping[str, str]] = {}
    told_outside: ClassVar[bool] = True

    def application(self) -> Any:
        """Return a new application with all of `work`, and /teapot, which answers 418. Nobody has instrumented it."""
        raise NotImplementedError

    def instrument(self, app: Any) -> Any:
        """Return the application as it is served with insitu."""
        return insitu.instrument(app)

    def below(self, app: Any) -> Any:
        """Return an application in which `app` is mounted at /below."""
        raise NotImplementedError

    def ask(self, app: Any, path: str, headers: Mapping[str, str], pieces: int | None) -> Answer:
        """GET a path as a server would have it; after so many pieces of the body the client leaves (None: never)."""
        raise NotImplementedError

    # --- helpers ---

    def _get(self, app: Any, path: str, headers: Mapping[str, str] | None = None, pieces: int | None = None) -> Answer:
        try:
            return self.ask(app, path, headers or {}, pieces)
        except LookupError as error:
            return Answer(500, error=error)

    def _name(self, route: str) -> str:
        return f"GET {self.templates[route]}" if self.templates else "GET"

    # --- the contract ---

    def test_a_request_is_one_server_span_named_by_its_route(self) -> None:
        """And counted once, with the same labels."""
        with recording() as recorded:
            answer = self._get(self.instrument(self.application()), "/items/7?secret=no")
            assert answer == (200, b"item 7", None)
            (span,) = servers(recorded)
            assert span.name == self._name("item")
            facts = span.attributes
            assert (facts["http.request.method"], facts["url.path"]) == ("GET", "/items/7")
            assert facts["url.query"] == "secret=[redacted]"
            assert facts.get("http.route", "") == self.templates.get("item", "")
            point = recorded.point("http.server.request.duration", {"http.response.status_code": 200})
            assert sum(point.buckets) == 1
            assert point.labels.get("http.route", "") == self.templates.get("item", "")

    def test_what_is_done_in_a_request_is_below_it(self) -> None:
        """Spans by their parent, log records by their trace."""
        with recording() as recorded:
            self._get(self.instrument(self.application()), "/items/7")
            (span,), load, (log,) = servers(recorded), recorded.span("load"), recorded.logs
            assert (load.trace.trace_id, load.parent_id) == (span.trace.trace_id, span.span_id)
            assert (log.trace_id, log.span_id) == (span.trace.trace_id, load.span_id)

    def test_work_in_a_thread_that_was_given_the_context_is_below_the_request(self) -> None:
        """As in a pool of threads."""
        with recording() as recorded:
            self._get(self.instrument(self.application()), "/thread")
            (span,) = servers(recorded)
            assert recorded.span("load").parent_id == span.span_id

    def test_an_exception_is_the_servers_as_it_is_without_us_and_recorded_once(self) -> None:
        """Its type, its message and what the client sees are the application's own."""
        before = self._get(self.application(), "/boom")
        with recording() as recorded:
            answer = self._get(self.instrument(self.application()), "/boom")
            assert (answer.status, answer.body) == (before.status, before.body)
            assert (type(answer.error), str(answer.error)) == (type(before.error), str(before.error))
            (span,), (error,) = servers(recorded), recorded.errors
            assert (span.name, span.attributes["error.type"]) == (self._name("boom"), "LookupError")
            assert (span.status.status_code, span.status.description) == (api.StatusCode.ERROR, "LookupError: boom")
            assert (error.type, error.span_id) == ("LookupError", span.span_id)

    def test_a_refusal_is_no_error(self) -> None:
        """A status below 500 is the client's affair (HTTP conventions)."""
        with recording() as recorded:
            assert self._get(self.instrument(self.application()), "/teapot").status == 418
            (span,) = servers(recorded)
            assert (span.status.status_code, span.attributes.get("error.type")) == (api.StatusCode.UNSET, None)

    def test_a_path_without_a_route_stays_out_of_names_and_labels(self) -> None:
        """Whoever scans for holes makes one series, not a thousand."""
        with recording() as recorded:
            app = self.instrument(self.application())
            for number in range(3):
                assert self._get(app, f"/wp-{number}.php").status == 404
            assert {span.name for span in servers(recorded)} == {"GET"}
            assert sum(recorded.point("http.server.request.duration").buckets) == 3

    def test_a_streamed_body_belongs_to_the_request_to_its_last_piece(self) -> None:
        """What makes a piece is below the request, though the application has returned long ago."""
        with recording() as recorded:
            answer = self._get(self.instrument(self.application()), "/stream")
            assert answer.body == STREAMED
            (span,) = servers(recorded)
            made = [piece for piece in recorded.spans if piece.name == "piece"]
            assert {piece.parent_id for piece in made} == {span.span_id}
            assert len(made) == 3
            assert span.response_size == len(answer.body)
            assert span.end_time >= max(piece.end_time for piece in made)

    def test_a_client_that_leaves_ends_the_request_and_is_nobodys_error(self) -> None:
        """Nothing stays open for ever."""
        with recording() as recorded:
            self._get(self.instrument(self.application()), "/stream", pieces=1)
            (span,) = servers(recorded)
            assert (span.status.status_code, recorded.errors) == (api.StatusCode.UNSET, [])
            assert recorded.point("http.server.active_requests").value == 0

    def test_the_trace_of_the_caller_goes_on(self) -> None:
        """W3C trace context."""
        with recording() as recorded:
            self._get(self.instrument(self.application()), "/items/7", PARENT)
            (span,) = servers(recorded)
            assert f"{span.trace.trace_id:032x}" == TRACE_ID
            assert span.parent_id == int(PARENT["traceparent"].split("-")[2], 16)

    def test_an_instrumented_application_below_another_is_one_request(self) -> None:
        """With the whole template, where the outer one knows of routes."""
        with recording() as recorded:
            app = insitu.instrument(self.below(self.instrument(self.application())))
            assert self._get(app, "/below/items/7").body == b"item 7"
            (span,) = servers(recorded)
            assert span.name == (
                f"GET /below{self.templates['item']}" if self.templates and self.told_outside else "GET"
            )

    def test_requests_at_the_same_time_do_not_mix(self) -> None:
        """Each trace has its own span, log record and fields."""
        with recording() as recorded, ThreadPoolExecutor(_AT_ONCE) as pool:
            app = self.instrument(self.application())
            list(pool.map(lambda number: self._get(app, f"/items/{number}"), range(_AT_ONCE)))
            assert {trace: numbers(recorded, trace) for trace in recorded.traces} == {
                trace: {int(server_of(trace).attributes["url.path"].rpartition("/")[2])} for trace in recorded.traces
            }
            assert len(recorded.traces) == _AT_ONCE

    def test_an_excluded_path_leaves_nothing(self) -> None:
        """No span, no count; what is below it is hidden, too."""
        with recording(exclude=("/items/*", "/stream")) as recorded:
            app = self.instrument(self.application())
            assert self._get(app, "/items/7").body == b"item 7"
            assert self._get(app, "/stream").body == STREAMED
            recorded.runtime.pipeline.drain(30)
            assert recorded.spans == []
            assert not any(family.name == "http.server.request.duration" for family in recorded.runtime.collect())

    def test_the_metrics_are_served_and_are_no_request(self) -> None:
        """To this machine, as they are to everybody with the token."""
        with recording() as recorded:
            answer = self._get(self.instrument(self.application()), "/metrics")
            assert (answer.status, b"# TYPE" in answer.body) == (200, True)
            assert servers(recorded) == []

    def test_after_shutdown_the_application_goes_on_unwatched(self) -> None:
        """What was instrumented stays so, and does nothing."""
        with recording():
            app = self.instrument(self.application())
        assert self._get(app, "/items/7").body == b"item 7"


class AsyncAdapterContract(AdapterContract):
    """The same for an asynchronous framework, whose requests can be cancelled while they wait: by the server, or by it.

    The application has /wait besides.
    """

    async def start(self, app: Any, path: str) -> object:
        """GET a path as a server would have it, in the task that runs this."""
        raise NotImplementedError

    def test_a_request_that_is_cancelled_ends_and_is_nobodys_error(self) -> None:
        """Marked as what it is, with what it was doing."""
        with recording() as recorded:
            asyncio.run(self._cancel(self.instrument(self.application())))
            (span,) = servers(recorded)
            assert span.attributes["insitu.cancelled"] is True
            assert (span.status.status_code, span.attributes.get("error.type")) == (api.StatusCode.UNSET, None)
            assert recorded.span("wait").parent_id == span.span_id
            assert recorded.errors == []
            assert recorded.point("http.server.active_requests").value == 0

    async def _cancel(self, app: Any) -> None:
        work.waiting.clear()
        task = asyncio.create_task(self.start(app, "/wait"))
        assert await asyncio.to_thread(work.waiting.wait, 10.0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


def servers(recorded: Recorded) -> list[Any]:
    """Return the SERVER spans."""
    return [span for span in recorded.spans if span.kind is api.SpanKind.SERVER]


def server_of(trace: LocalTrace) -> Any:
    """Return the SERVER span of a trace."""
    return next(span for span in trace.spans if span.kind is api.SpanKind.SERVER)


def numbers(recorded: Recorded, trace: LocalTrace) -> set[Any]:
    """Return the numbers that stand in a trace's spans and log records."""
    logged = [(log.attributes or {})["number"] for log in recorded.logs if log.trace_id == trace.trace_id]
    return {*logged, *((span.own or {})["number"] for span in trace.spans if span.name == "load")}
