"""The map of services, from what each of them counted and kept."""

import pytest

from insitu.analysis import topology
from insitu.core.questions import DATABASE_CALLS, HTTP_CALLS, TASKS_BEGUN, TASKS_SENT, Called, Facts, RemoteSpan

TOTAL = {"name": "", "count": 0, "errors": 0, "rate": 0.0}


def facts(*remote, count=0, http=(), database=(), sent=(), begun=()):
    calls = {HTTP_CALLS: http, DATABASE_CALLS: database, TASKS_SENT: sent, TASKS_BEGUN: begun}
    return Facts({"total": {**TOTAL, "count": count}}, calls, remote, 10 * 10**9, 30 * 10**9)


def http(host, times, seconds=1.0, **labels):
    return Called({"server.address": host, "server.port": "80", **labels}, times, seconds)


def edges(found):
    return {(edge["from"], edge["to"]): edge for edge in topology.dependencies(found)["edges"]}


def test_a_host_is_the_service_whose_request_a_kept_call_is_the_parent_of():
    shop = facts(RemoteSpan("01", "", "a:80"), RemoteSpan("02", "", "b:80"), http=[http("a", 5), http("b", 7)])
    prices = facts(RemoteSpan("03", "01", ""))
    drawn = topology.dependencies({"shop": shop, "prices": prices})
    assert {(edge["to"], edge["kind"], edge["count"]) for edge in drawn["edges"]} == {
        ("prices", "service", 5),
        ("b:80", "host", 7),
    }
    assert {(node["name"], node["kind"]) for node in drawn["nodes"]} == {
        ("shop", "service"),
        ("prices", "service"),
        ("b:80", "host"),
    }


def test_rate_errors_and_duration_are_those_of_all_calls_of_an_edge():
    calls = [http("a", 30, 3.0), http("a", 10, 7.0, **{"error.type": "503"})]
    edge = edges({"shop": facts(http=calls)})["shop", "a:80"]
    assert (edge["count"], edge["errors"], edge["rate"], edge["mean"]) == (40, 10, 2.0, pytest.approx(0.25))


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({"db.system.name": "sqlite", "db.namespace": "/var/lib/shop.db"}, "sqlite shop.db"),
        (
            {"db.system.name": "postgresql", "db.namespace": "shop", "server.address": "db", "server.port": "5432"},
            "postgresql shop db:5432",
        ),
        ({"db.system.name": "redis"}, "redis"),
    ],
)
def test_a_database_is_named_by_what_it_is_and_where(labels, name):
    (node,) = [key for _, key in edges({"shop": facts(database=[Called(labels, 1, 0.1)])})]
    assert node == name


def test_a_queue_stands_between_who_sends_tasks_and_who_runs_them():
    task = {"task": "thumbnail", "queue": "pictures"}
    shop = facts(sent=[Called(task, 20, 0.0)])
    worker = facts(begun=[Called(task, 10, 5.0), Called({**task, "task": "other"}, 5, 2.5)])
    drawn = topology.dependencies({"shop": shop, "worker": worker})
    assert {"name": "queue pictures", "kind": "queue"} in drawn["nodes"]
    found = {(edge["from"], edge["to"]): edge for edge in drawn["edges"]}
    assert set(found) == {("shop", "queue pictures"), ("queue pictures", "worker")}
    assert found["shop", "queue pictures"] == {
        "from": "shop",
        "to": "queue pictures",
        "kind": "queue",
        "count": 20,
        "errors": 0,
        "rate": 1.0,
        "mean": 0.0,
    }
    waited = found["queue pictures", "worker"]
    assert (waited["kind"], waited["count"], waited["mean"]) == ("service", 15, 0.5)


def test_services_are_listed_with_the_busiest_first():
    listed = topology.services({"a": facts(count=1), "b": facts(count=9), "c": facts(count=1)})
    assert [service["name"] for service in listed] == ["b", "a", "c"]


def test_a_request_from_outside_is_nobodys_edge():
    assert edges({"shop": facts(RemoteSpan("03", "ff", ""))}) == {}
