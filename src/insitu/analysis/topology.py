"""Who calls whom: a map drawn from what services counted and kept.

How often, how long and how well an edge is used is counted exactly by who calls; that `10.0.0.7:8000` is the service
`prices` follows from kept traces, in which a call of one service is the parent of a request to the other.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from insitu.core.questions import DATABASE_CALLS, HTTP_CALLS, TASKS_BEGUN, TASKS_SENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from insitu.core.questions import Called, Facts


class Node(NamedTuple):
    """Who is called, or calls. `kind` is service, host, database or queue."""

    name: str
    kind: str


def services(facts: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """Return each service with its requests: {name, count, errors, rate, p50, p95, p99, longest}, the busiest first."""
    told = [{**facts[name].routes["total"], "name": name} for name in facts]
    return sorted(told, key=lambda service: (-service["count"], service["name"]))


def dependencies(facts: Mapping[str, Facts]) -> dict[str, Any]:
    """Return the map as {nodes: [{name, kind}], edges: [{from, to, kind, count, errors, rate, mean}]}.

    A rate is one a second of the time in which the service is known and its calls are counted, a mean is in seconds: of
    a call what it takes, of a task that a service takes from a queue how long it has waited there.
    """
    known = names_of_peers(facts)
    edges: dict[tuple[Node, Node], list[float]] = {}
    for name, told in facts.items():
        for caller, called, call in _calls(Node(name, "service"), told, known):
            sums = edges.setdefault((caller, called), [0.0, 0.0, 0.0, _seconds(told)])
            sums[0] += call.times
            sums[1] += call.times if "error.type" in call.labels else 0.0
            sums[2] += call.seconds
    nodes = sorted({*(Node(name, "service") for name in facts), *itertools.chain(*edges)})
    drawn = [_edge(caller, called, *sums) for (caller, called), sums in edges.items()]
    return {
        "nodes": [node._asdict() for node in nodes],
        "edges": sorted(drawn, key=lambda edge: (-edge["count"], edge["from"], edge["to"])),
    }


def names_of_peers(facts: Mapping[str, Facts]) -> dict[str, str]:
    """Return which service stands behind `host:port`, as far as kept traces tell."""
    called = {span.span_id: span.peer for told in facts.values() for span in told.remote if span.peer}
    answered = (
        (name, called.get(span.parent_id, "")) for name, told in facts.items() for span in told.remote if not span.peer
    )
    return {peer: name for name, peer in answered if peer}


def _calls(own: Node, told: Facts, known: Mapping[str, str]) -> Iterator[tuple[Node, Node, Called]]:
    """Yield who calls, who is called, and how often."""
    for call in told.calls.get(HTTP_CALLS, ()):
        peer = f"{call.labels.get('server.address', '')}:{call.labels.get('server.port', '')}"
        yield own, Node(known[peer], "service") if peer in known else Node(peer, "host"), call
    for call in told.calls.get(DATABASE_CALLS, ()):
        labels = call.labels
        where = ":".join(filter(None, (labels.get("server.address"), labels.get("server.port"))))
        what = labels.get("db.namespace", "").rpartition("/")[2]
        yield own, Node(" ".join(filter(None, (labels.get("db.system.name"), what, where))), "database"), call
    for call in told.calls.get(TASKS_SENT, ()):
        yield own, _queue(call), call
    for call in told.calls.get(TASKS_BEGUN, ()):
        yield _queue(call), own, call


def _queue(call: Called) -> Node:
    return Node(f"queue {call.labels.get('queue', '')}".strip(), "queue")


def _seconds(told: Facts) -> float:
    return max(1.0, (told.until - told.since) / 1e9)


def _edge(caller: Node, called: Node, count: float, errors: float, took: float, seconds: float) -> dict[str, Any]:
    told = {"from": caller.name, "to": called.name, "kind": called.kind, "count": round(count), "errors": round(errors)}
    return {**told, "rate": count / seconds, "mean": took / count}
