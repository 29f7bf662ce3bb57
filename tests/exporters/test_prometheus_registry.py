import prometheus_client as client
import pytest

from insitu.core.records import Resource
from insitu.exporters.prometheus import Page
from insitu.exporters.prometheus_registry import families


@pytest.fixture
def registry():
    return client.CollectorRegistry()


def found(registry):
    return {family.name: family for family in families(registry)}


def test_counters_and_gauges_come_with_their_labels(registry):
    client.Counter("orders", "What was ordered.", ["plan"], registry=registry).labels("pro").inc(3)
    client.Gauge("depth", "", registry=registry).set(7)
    counter, gauge = found(registry)["orders"], found(registry)["depth"]
    assert (counter.kind, counter.help, counter.points) == (
        "counter",
        "What was ordered.",
        [({"plan": "pro"}, 3, (), (), 0)],
    )
    assert (gauge.kind, gauge.merging, gauge.points[0].value) == ("gauge", "worker", 7)


@pytest.mark.parametrize(("mode", "merge"), [("all", "worker"), ("livesum", "sum"), ("max", "max"), ("livemax", "max")])
def test_a_gauge_is_merged_as_prometheus_client_would(registry, mode, merge):
    client.Gauge("depth", "", registry=registry, multiprocess_mode=mode).set(7)
    assert found(registry)["depth"].merging == merge


def test_a_histogram_has_counts_of_its_own_in_each_bucket(registry):
    took = client.Histogram("took", "", ["route"], buckets=(0.1, 1), registry=registry)
    for seconds in (0.05, 0.5, 0.6, 3):
        took.labels("/").observe(seconds)
    family = found(registry)["took"]
    assert family.bounds == (0.1, 1.0)
    assert family.points == [({"route": "/"}, pytest.approx(4.15), [1, 2, 1], (), 0)]


def test_a_summary_is_two_sums(registry):
    client.Summary("size", "", registry=registry).observe(3)
    assert {name: (each.merging, each.points[0].value) for name, each in found(registry).items()} == {
        "size_count": ("total", 1),
        "size_sum": ("total", 3),
    }


def test_what_prometheus_client_puts_there_itself_is_left_out():
    assert not any(name.startswith(("python_info", "process_")) for name in found(client.REGISTRY))


def test_a_collector_that_raises_costs_only_itself(registry, caplog):
    class Broken:
        def collect(self):
            yield from ()
            raise OSError("broken")

        def describe(self):
            return []

    registry.register(Broken())
    client.Gauge("depth", "", registry=registry).set(7)
    assert list(found(registry)) == ["depth"]
    assert "exporters.prometheus.registry failed with OSError: broken" in caplog.text


def test_a_page_of_several_workers_says_nothing_of_one_process_and_shows_their_metrics_once(registry):
    client.Counter("orders", "", registry=registry).inc(3)
    about = Resource({"service.name": "shop", "process.pid": 7, "service.instance.id": "x"})
    page = Page(lambda: families(registry), about, several=lambda: True).render("")[1].decode()
    assert 'target_info{service_name="shop"} 1' in page
    assert page.count("\norders_total") == 1
