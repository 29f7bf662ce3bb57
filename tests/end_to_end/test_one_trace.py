"""A trace that crosses Django, httpx, FastAPI, SQLAlchemy on a real PostgreSQL, and a real Redis."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

import insitu
from tests.servers import free_port, running, until

pytestmark = pytest.mark.backend

ROOTS = (Path(insitu.__file__).parents[1], Path(__file__).parents[2])
SERVERS = {
    "front": ["gunicorn", "--log-level=warning", "--bind=127.0.0.1:{port}", "tests.end_to_end.crossing:front()"],
    "back": ["uvicorn", "--log-level=warning", "--factory", "--port={port}", "tests.end_to_end.crossing:back"],
}


def served(name, folder, **environ):
    """A service under `insitu run`, and its address."""
    port = free_port()
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, ROOTS)), "INSITU_STORE": str(folder)}
    given |= {"OTEL_BSP_SCHEDULE_DELAY": "200", **environ}
    clean = ["env", "-i", *(f"{key}={value}" for key, value in given.items())]
    run = [sys.executable, "-m", "insitu.cli", "run", "--service", name, sys.executable, "-m"]
    command = [*clean, *run, *(word.format(port=port) for word in SERVERS[name])]
    address = f"http://127.0.0.1:{port}"
    return running(command, f"{address}/ready", folder / f"{name}.log"), address


def spans_of(agent, path):
    """The spans of the one trace that has a request to this path, by span id, each with its service."""
    spans = [
        {**span, "service": service["value"]["string_value"], "facts": facts(span)}
        for request in agent.received("traces")
        for told in request["resource_spans"]
        for service in told["resource"]["attributes"]
        if service["key"] == "service.name"
        for scope in told["scope_spans"]
        for span in scope["spans"]
    ]
    traces = {span["trace_id"] for span in spans if span["facts"].get("url.path") == path}
    return {span["span_id"]: span for span in spans if span["trace_id"] in traces}


def facts(span):
    return {each["key"]: next(iter(each["value"].values()), None) for each in span["attributes"]}


def test_it_is_one_trace_with_the_right_parents_and_the_repetition_is_told(
    ddapm_agent, postgresql, redis_port, tmp_path
):
    otlp = {"OTEL_EXPORTER_OTLP_ENDPOINT": ddapm_agent.otlp}
    with ExitStack() as stack:
        back, at_back = served("back", tmp_path, POSTGRESQL=postgresql.address, REDIS=redis_port, **otlp)
        stack.enter_context(back)
        front, at_front = served("front", tmp_path, BACK=at_back, **otlp)
        stack.enter_context(front)
        assert len(httpx.get(f"{at_front}/pages/12").json()) == 12
        found = until(
            lambda: spans if len(spans := spans_of(ddapm_agent, "/pages/12")) == 16 else {}, what="16 spans of a trace"
        )
        whole = until(lambda: httpx.get(f"{at_back}/monitoring/services").json()["services"], what="the services")
        edges = until(
            lambda: {
                (edge["from"], edge["to"]): edge["count"]
                for edge in httpx.get(f"{at_front}/monitoring/dependencies").json()["edges"]
                if edge["kind"] == "service"
            },
            timeout=30,
            what="an edge of the map",
        )
    assert len({span["trace_id"] for span in found.values()}) == 1
    by_name = {span["name"]: span for span in found.values() if "db.system.name" not in span["facts"]}
    chain = ["GET /pages/<int:number>", "GET", "GET /authors/{number}"]
    parents = [by_name[name].get("parent_span_id", "") for name in chain]
    assert parents == ["", *(by_name[name]["span_id"] for name in chain[:2])]
    assert [by_name[name]["service"] for name in chain] == ["front", "front", "back"]
    below = [span for span in found.values() if span.get("parent_span_id") == by_name[chain[2]]["span_id"]]
    systems = sorted(span["facts"]["db.system.name"] for span in below)
    assert systems == ["postgresql"] * 12 + ["redis"]
    told = by_name[chain[2]]["facts"]
    assert (told["insitu.repeated.statement"], int(told["insitu.repeated.times"])) == ("SELECT", 12)
    assert {service["name"] for service in whole} == {"front", "back"}
    assert edges == {("front", "back"): 1}
