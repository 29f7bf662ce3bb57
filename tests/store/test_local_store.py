"""From a request to the store and back, through the whole of insitu."""

import contextlib
import os

import pytest

import insitu
from insitu.core.questions import LogSearch, Period, TraceSearch
from insitu.runtime import requests
from insitu.store.reader import Reader
from insitu.testing import FakeClock, recording

RAW = ("http", "/items/3", b"", "1.1", b"shop", b"", None, None)


def reader_of(runtime):
    runtime.pipeline.drain(5)
    runtime.store.write()
    return Reader(runtime.store.folder, runtime.store.database)


def serve(status=200, route="/items/{id}", body=lambda: None):
    span = requests.begin("GET", RAW, None, -1)
    token = insitu.core.context.enter(span)
    try:
        body()
    finally:
        span.response_status = status
        requests.finish(span, route)
        insitu.core.context.leave(token)
    return f"{span.trace.trace_id:032x}"


@pytest.fixture
def started(tmp_path):
    with recording(clock=FakeClock(), store=str(tmp_path / "kept")) as recorded:
        recorded.runtime.pipeline.sinks.pop(0)  # the test's own, which wants everything
        yield recorded.runtime


def test_a_request_is_found_with_its_spans_and_log_records(started):
    def body():
        with insitu.span("load", tier="gold"):
            insitu.log.info("loaded", items=3)

    trace_id = serve(body=body)
    reader = reader_of(started)
    (found,) = reader.traces(TraceSearch(key="tier", value="gold"), Period()).found
    assert (found["trace_id"], found["name"], found["outcome"]) == (trace_id, "GET /items/{id}", "200")
    whole = reader.trace(trace_id)
    assert [span["name"] for span in whole["spans"]] == ["GET /items/{id}", "load"]
    assert [(record["body"], record["attributes"]["items"]) for record in whole["logs"]] == [("loaded", 3)]


def test_errors_of_one_problem_are_found_by_their_fingerprint(started):
    def order(product):
        with insitu.span("order"):
            raise LookupError(f"no price for {product}")

    for product in ("lamp", "table"):
        with contextlib.suppress(LookupError):
            serve(500, body=lambda product=product: order(product))
    reader = reader_of(started)
    newest, _ = reader.traces(TraceSearch(), Period()).found
    (span,) = [span for span in reader.trace(newest["trace_id"])["spans"] if span["name"] == "order"]
    told = span["attributes"]["insitu.fingerprint"]
    assert told == span["events"][0]["attributes"]["insitu.fingerprint"]
    assert len(reader.traces(TraceSearch(key="insitu.fingerprint", value=told), Period()).found) == 2


def test_what_is_stored_is_redacted(started):
    serve(body=lambda: insitu.log.info("signed in", password="hunter2hunter2"))
    reader_of(started)
    assert b"hunter2" not in b"".join(path.read_bytes() for path in started.store.folder.iterdir())


def test_under_load_errors_are_kept_and_exemplars_name_kept_traces_only(started):
    for number in range(3_000):
        serve(500 if number % 500 == 0 else 200)
    reader = reader_of(started)
    failed = reader.traces(TraceSearch(failed=True), Period(limit=10_000), 10).found
    kept = {found["trace_id"] for found in reader.traces(TraceSearch(), Period(limit=10_000), 10).found}
    families = {family.name: family for family in started.collect()}
    exemplars = {
        f"{exemplar.trace_id:032x}"
        for point in families["http.server.request.duration"].points
        for exemplar in point.exemplars
        if exemplar is not None
    }
    assert len(failed) == 6
    assert 100 < len(kept) < 1_000
    assert exemplars
    assert exemplars <= kept
    seen = {point.labels["reason"]: point.value for point in families["insitu.seen_traces"].points}
    assert sum(seen.values()) == 3_000
    assert sum(point.value for point in families["insitu.kept_traces"].points) == len(kept)


def test_log_records_without_a_trace_are_found_by_text(started):
    insitu.log.warning("cache is cold", region="eu")
    assert [found["body"] for found in reader_of(started).logs(LogSearch(text="COLD"), Period()).found] == [
        "cache is cold"
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_writes_a_file_of_its_own_and_both_are_read(started):
    serve(route="/parent")
    reader_of(started)
    started.keeper.turn(started.clock.wall())
    status, child = 1, os.fork()
    if not child:
        try:
            assert sum(started.keeper.seen.values()) == 0
            assert started.keeper.closed() == []
            serve(route="/child")
            reader_of(started)
            started.store.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    serve(route="/parent/again")
    names = {found["name"] for found in reader_of(started).traces(TraceSearch(), Period()).found}
    assert names == {"GET /parent", "GET /child", "GET /parent/again"}
    assert len(list(started.store.folder.glob("*.db"))) == 2


def test_shutdown_writes_the_rest(tmp_path):
    with recording(store=str(tmp_path)) as recorded:
        trace_id = serve()
    assert Reader(recorded.runtime.store.folder, lambda: None).trace(trace_id) is not None
