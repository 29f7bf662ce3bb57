"""Who reads what from a running application that keeps things: FAULTS rows 46, 47 and 51."""

import httpx
import pytest

from tests.end_to_end.serving import SECRET, serving
from tests.servers import get_json, until

TOKEN = "a-token-for-the-operators"
PROXIED = {"x-forwarded-for": "203.0.113.7"}
"""Behind a proxy on this machine everybody's address is this machine's."""


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("application"), INSITU_TOKEN=TOKEN) as started:
        with started.client() as client:
            for number in range(20):
                client.post(f"/orders/{number}?value=3")
            client.get("/fails")
        until(lambda: get_json(f"{started.url}/monitoring/traces")["traces"], what="a kept trace")
        yield started


@pytest.fixture(scope="module")
def paths(application):
    """Every address that insitu answers: the page, its files, all of the API, the metrics."""
    described = get_json(f"{application.url}/monitoring/openapi.json")["paths"]
    trace = get_json(f"{application.url}/monitoring/traces")["traces"][0]["trace_id"]
    named = [path.format(trace_id=trace, name="http.server.request.duration") for path in described]
    return ["/metrics", "/monitoring", "/monitoring/", "/monitoring/assets/app.js", "/monitoring/nothing", *named]


def statuses(application, paths, method="GET", **headers):
    with httpx.Client(base_url=application.url, headers={**headers, "connection": "close"}) as client:
        answers = {}
        for path in paths:
            with client.stream(method, path) as answer:
                answers[path] = answer.status_code
        return answers


def test_no_address_answers_somebody_from_elsewhere_without_the_token(application, paths):
    elsewhere = [
        PROXIED,
        {**PROXIED, "authorization": "Bearer wrong"},
        {**PROXIED, "authorization": f"Bearer {TOKEN[:-1]}"},
        {"via": "1.1 proxy"},
        {"forwarded": "for=127.0.0.1"},
    ]
    for headers in elsewhere:
        assert set(statuses(application, paths, **headers).values()) == {401}
    print(f"FAULTS 46: {len(paths)} addresses, {len(elsewhere)} strangers, all 401")


def test_the_token_opens_every_address(application, paths):
    answers = statuses(application, paths, **PROXIED, authorization=f"Bearer {TOKEN}")
    sampled_yet = answers.pop("/monitoring/metrics/http.server.request.duration")  # ten seconds after it was counted
    assert sampled_yet in {200, 404}
    assert {path: status for path, status in answers.items() if status != 200} == {
        "/monitoring": 307,
        "/monitoring/nothing": 404,
    }


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.0.2.7", "localhost@evil.example"])
def test_a_name_rebound_to_this_machine_is_refused_everywhere(application, paths, host):
    assert set(statuses(application, paths, host=host).values()) == {401}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed_from_another_site(application, paths, method):
    before = get_json(f"{application.url}/monitoring/traces?limit=1000")["traces"]
    here = statuses(application, paths, method, origin="https://evil.example")
    assert set(here.values()) == {405}
    assert set(statuses(application, paths, method, **PROXIED, origin="https://evil.example").values()) == {401}
    assert get_json(f"{application.url}/monitoring/traces?limit=1000")["traces"] == before
    print(f"FAULTS 47: {method} to {len(paths)} addresses: {sorted(set(here.values()))}, nothing changed")


def test_no_answer_holds_a_secret_or_lets_another_site_read_it(application, paths):
    with httpx.Client(base_url=application.url) as client:
        for path in paths:
            if path.endswith("logs/streams"):
                continue  # read in test_asgi_answers; what it tells is what `logs` does
            answer = client.get(path, headers={"origin": "https://evil.example"})
            assert SECRET not in answer.text, path
            assert TOKEN not in answer.text, path
            assert "access-control-allow-origin" not in answer.headers, path
            assert answer.headers["x-content-type-options"] == "nosniff", path
        size = len(client.get("/metrics").content)
    print(f"FAULTS 51: {len(paths)} addresses without a secret; /metrics is {size / 1000:.0f} kB")
