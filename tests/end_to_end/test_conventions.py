"""Our server spans and metrics against those of opentelemetry-instrumentation-fastapi, on the same requests.

Whatever differs stands in DIFFERENCES with its reason, and in docs/decisions.md; the rest stands in neither.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import insitu
from tests.end_to_end.server_spans import REQUESTS

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions.md"
SECTION = "## Where our server spans differ from opentelemetry-instrumentation-fastapi"
DURATION, ACTIVE = "http.server.request.duration", "http.server.active_requests"
NOTHING = "nothing"


class Difference(NamedTuple):
    """`ours` and `theirs` are values as text; `requests` names them, or says `all`."""

    what: str
    requests: str
    ours: str
    theirs: str
    why: str


DIFFERENCES = (
    Difference(
        "server.address",
        "all",
        "127.0.0.1",
        "127.0.0.1:8000",
        "The conventions want the name alone; the port has an attribute of its own",
    ),
    Difference("network.peer.address", "all", "127.0.0.1", NOTHING, "Recommended by the conventions"),
    Difference("network.peer.port", "all", "50000", NOTHING, "Recommended where network.peer.address is there"),
    Difference(
        "error.type",
        "raises",
        "ValueError",
        "500",
        "The conventions allow either; the status has an attribute of its own, the exception none on the metric",
    ),
    Difference(
        "status text",
        "raises",
        "ValueError: out of stock",
        NOTHING,
        "To be left out only where the status code tells the reason; 500 does not",
    ),
    Difference(
        "event exception",
        "raises",
        "exception.message, exception.stacktrace, exception.type, insitu.fingerprint",
        "exception.escaped, exception.message, exception.stacktrace, exception.type",
        "The conventions have deprecated exception.escaped",
    ),
    Difference(
        "insitu.fingerprint",
        "raises",
        "16 hexadecimal digits",
        NOTHING,
        "Errors of one problem have one; the conventions have no attribute for that",
    ),
)


@pytest.fixture(scope="module")
def seen():
    """What both have seen: `ours, theirs`."""
    return [_observed(by) for by in ("insitu", "opentelemetry")]


def _observed(by):
    path = os.pathsep.join((str(Path(insitu.__file__).parents[1]), str(ROOT)))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "OTEL_SEMCONV_STABILITY_OPT_IN": "http"}
    command = [sys.executable, "-m", "tests.end_to_end.server_spans", by]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def _shown(value):
    return NOTHING if value in (None, "") else str(value)


def _differences(seen):
    """The requests by what differs, ours and theirs."""
    ours, theirs = (one["spans"] for one in seen)
    found = {}
    for request in REQUESTS:
        for key in sorted(ours[request].keys() | theirs[request].keys()):
            pair = _shown(ours[request].get(key)), _shown(theirs[request].get(key))
            if pair[0] != pair[1]:
                found.setdefault((key, *pair), []).append(request)
    return {key: "all" if len(names) == len(REQUESTS) else ", ".join(names) for key, names in found.items()}


def test_server_spans_differ_exactly_where_the_table_says(seen):
    assert all(one["spans"].keys() == REQUESTS.keys() for one in seen)
    table = {(row.what, row.ours, row.theirs): row.requests for row in DIFFERENCES}
    assert _differences(seen) == table


def test_each_difference_has_a_reason():
    assert all(len(row.why) > 20 for row in DIFFERENCES)


def test_the_documentation_lists_the_same_differences():
    section = DECISIONS.read_text().partition(f"{SECTION}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")][2:]
    assert [tuple(cell.strip("`") for cell in row) for row in rows] == list(DIFFERENCES)


def test_both_measure_durations_in_the_same_series(seen):
    ours, theirs = (one["metrics"][DURATION] for one in seen)
    assert (ours["unit"], ours["bounds"]) == ("s", theirs["bounds"])
    assert theirs["unit"] == "s"
    assert _series(ours, "error.type") == _series(theirs, "error.type")
    assert sum(_series(ours).values()) == len(REQUESTS)


def test_an_error_has_the_same_type_on_the_span_and_in_the_metric(seen):
    for one in seen:
        on_spans = sorted(span["error.type"] for span in one["spans"].values() if "error.type" in span)
        labels = [labels for labels, _ in one["metrics"][DURATION]["points"]]
        in_series = sorted(each["error.type"] for each in labels if "error.type" in each)
        assert on_spans == in_series


def test_both_count_requests_under_way_in_the_same_series(seen):
    ours, theirs = (one["metrics"][ACTIVE] for one in seen)
    assert ours["unit"] == theirs["unit"] == "{request}"
    assert _series(ours) == _series(theirs)


def _series(metric, *but):
    """The counts by labels; the values of the labels in `but` may differ."""
    return {
        frozenset((key, "" if key in but else value) for key, value in labels.items()): count
        for labels, count in metric["points"]
    }
