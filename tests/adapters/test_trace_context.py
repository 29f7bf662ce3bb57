"""W3C trace context through a real FastAPI application, from the wire to the httpx call that it makes (FAULTS 42)."""

import httpx
import pytest
from fastapi import FastAPI, Request

from insitu import runtime
from insitu.adapters import httpx as httpx_adapter
from insitu.testing import recording
from tests.adapters.serving import plain_transports, raw, served
from tests.servers import until

IDS = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
GOOD = f"00-{IDS}-{PARENT}-01"

CONTEXTS = [
    # (headers as they stand on the wire, whether the trace goes on, flags, tracestate)
    ([("traceparent", GOOD)], True, "01", None),
    ([("Traceparent", GOOD)], True, "01", None),
    ([("TRACEPARENT", GOOD)], True, "01", None),
    ([("traceparent", f" {GOOD}\t")], True, "01", None),
    ([("traceparent", f"00-{IDS}-{PARENT}-03")], True, "03", None),
    ([("traceparent", f"cc-{IDS}-{PARENT}-01-what-the-future-brings")], True, "01", None),
    ([("traceparent", f"cc-{IDS}-{PARENT}-01.what")], False, None, None),
    ([("traceparent", f"ff-{IDS}-{PARENT}-01")], False, None, None),
    ([("traceparent", f"00-{IDS}-{PARENT}-01-more")], False, None, None),
    ([("traceparent", f"00-{'0' * 32}-{PARENT}-01")], False, None, None),
    ([("traceparent", f"00-{IDS}-{'0' * 16}-01")], False, None, None),
    ([("traceparent", GOOD.upper())], False, None, None),
    ([("traceparent", f"00-{IDS[:-1]}-{PARENT}-01")], False, None, None),
    ([("traceparent", f"00-{IDS}-{PARENT}-1")], False, None, None),
    ([("traceparent", f"00-{IDS}-{PARENT}-.1")], False, None, None),
    ([("traceparent", "")], False, None, None),
    ([("trace-parent", GOOD)], False, None, None),
    ([("traceparent", GOOD), ("traceparent", GOOD)], False, None, None),
    ([("traceparent", GOOD), ("TraceParent", f"00-{IDS}-{PARENT}-00")], False, None, None),
    ([("tracestate", "foo=1")], False, None, None),
    ([("traceparent", GOOD), ("tracestate", "foo=1,bar=2")], True, "01", "foo=1,bar=2"),
    ([("traceparent", GOOD), ("tracestate", "foo=1"), ("TraceState", "bar=2")], True, "01", "foo=1,bar=2"),
    ([("traceparent", GOOD), ("tracestate", "foo=1,,\t bar=2 ,")], True, "01", "foo=1,bar=2"),
    ([("traceparent", GOOD), ("tracestate", "foo=1,foo=2")], True, "01", "foo=1"),
    ([("traceparent", GOOD), ("tracestate", "foo =1")], True, "01", None),
    ([("traceparent", GOOD), ("tracestate", "FOO=1")], True, "01", None),
    ([("traceparent", GOOD), ("tracestate", ",".join(f"k{n}=1" for n in range(32)))], True, "01", "32"),
    ([("traceparent", GOOD), ("tracestate", ",".join(f"k{n}=1" for n in range(33)))], True, "01", None),
    ([("traceparent", GOOD.replace("7", "\xff"))], False, None, None),
]


@pytest.fixture(scope="module")
def application():
    """A served application whose /call asks its own /echo by httpx, and answers with the headers that came there."""
    app = FastAPI()

    @app.get("/echo")
    async def echo(request: Request):
        return dict(request.headers)

    @app.get("/call")
    async def outgoing(request: Request):
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{request.url.port}/echo")).json()

    with recording(exclude=("/echo",)) as recorded, pytest.MonkeyPatch.context() as patch:
        plain_transports(patch)
        httpx_adapter.hook(httpx)
        with served(runtime.current().instrument(app), http="h11") as port:
            yield recorded, port


def visit(application, headers):
    """The server span, the client span below it, and the headers of the outgoing call."""
    recorded, port = application
    recorded._sink.records.clear()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    request = f"GET /call HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{lines}\r\n"
    head, _, content = raw(port, request.encode("latin-1")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    until(lambda: len(recorded.spans) >= 2, 5)
    calling, serving = recorded.spans
    return serving, calling, httpx.Response(200, content=content).json()


@pytest.mark.parametrize(("headers", "goes_on", "flags", "state"), CONTEXTS)
def test_the_callers_trace_goes_on_or_a_new_one_begins_as_the_recommendation_says(
    application, headers, goes_on, flags, state
):
    serving, calling, outgoing = visit(application, headers)
    _, out_trace, out_parent, out_flags = outgoing["traceparent"].split("-")
    assert (serving.name, calling.parent_id) == ("GET /call", serving.span_id)
    assert (out_trace, out_parent) == (f"{serving.trace.trace_id:032x}", f"{calling.span_id:016x}")
    assert (out_trace == IDS) is goes_on
    assert serving.parent_id == (int(PARENT, 16) if goes_on else 0)
    assert serving.parent_remote is goes_on
    assert out_flags == (flags or "03")  # a trace that begins here says that its id is random
    if state == "32":
        assert outgoing["tracestate"].count(",") == 31
    else:
        assert outgoing.get("tracestate") == state


def test_the_callers_baggage_goes_on_to_the_next_server(application):
    _, _, outgoing = visit(application, [("baggage", "tier=gold;p=1"), ("Baggage", "user=al%20ice,bad key=1,=2")])
    assert outgoing["baggage"] == "tier=gold,user=al%20ice"
