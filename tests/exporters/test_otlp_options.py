import logging
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from insitu.core import guard
from insitu.exporters.otlp_options import Options, Target

PREFIX = "OTEL_EXPORTER_OTLP_"


@pytest.fixture(autouse=True)
def warnings_are_fresh(monkeypatch):
    monkeypatch.setattr(guard, "_last_logged", {})


def read(**variables):
    return Options.from_environ(
        {PREFIX + name if not name.startswith("OTEL_") else name: value for name, value in variables.items()}
    )


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "insitu"]


def test_nothing_set_gives_opentelemetrys_defaults(caplog):
    assert read() == Options()
    assert read(ENDPOINT="", HEADERS=" ", TIMEOUT="") == Options()
    assert Options().traces == Target("http://localhost:4318/v1/traces", {}, 10.0, gzip=False)
    assert (Options().batch_items, Options().delay, Options().metrics_interval) == (512, 5.0, 60.0)
    assert not warned(caplog)


def test_the_general_endpoint_gets_the_signals_path_and_a_signals_own_is_taken_as_it_is():
    options = read(ENDPOINT="http://collector:4318/base/", LOGS_ENDPOINT="https://logs.example/in")
    urls = (options.traces.url, options.metrics.url, options.logs.url)
    assert urls == (
        "http://collector:4318/base/v1/traces",
        "http://collector:4318/base/v1/metrics",
        "https://logs.example/in",
    )


def test_every_setting_may_be_said_for_one_signal():
    options = read(
        HEADERS="a=1",
        TIMEOUT="4",
        COMPRESSION="gzip",
        CERTIFICATE="/ca",
        CLIENT_CERTIFICATE="/cert",
        CLIENT_KEY="/key",
        TRACES_HEADERS="b=2",
        TRACES_TIMEOUT="2.5",
        TRACES_COMPRESSION="none",
        TRACES_CERTIFICATE="/ca-t",
        TRACES_CLIENT_CERTIFICATE="/cert-t",
        TRACES_CLIENT_KEY="/key-t",
    )
    base = "http://localhost:4318/v1"
    assert options.traces == Target(f"{base}/traces", {"b": "2"}, 2.5, False, "/ca-t", "/cert-t", "/key-t")
    assert options.metrics == Target(f"{base}/metrics", {"a": "1"}, 4.0, True, "/ca", "/cert", "/key")
    assert options.logs == Target(f"{base}/logs", {"a": "1"}, 4.0, True, "/ca", "/cert", "/key")


OFFICIAL = {"traces": OTLPSpanExporter, "metrics": OTLPMetricExporter, "logs": OTLPLogExporter}
ENVIRONMENTS = [
    {},
    {"ENDPOINT": "http://a:1/x/", "TIMEOUT": "3"},
    {"ENDPOINT": "http://a:1", "TRACES_ENDPOINT": "http://b:2/traces", "METRICS_TIMEOUT": "7.5", "COMPRESSION": "gzip"},
    {"HEADERS": "api-key=abc%20def, X-Tenant = one ,authorization=Basic dXNlcg==", "LOGS_HEADERS": "only=logs"},
    {"HEADERS": "a=1,,b=%C3%A4,c", "TIMEOUT": "soon", "COMPRESSION": "zip"},
]


@pytest.mark.parametrize("variables", ENVIRONMENTS, ids=str)
@pytest.mark.parametrize("signal", OFFICIAL)
def test_variables_mean_what_they_mean_to_the_official_exporter(variables, signal, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value)
    official = OFFICIAL[signal]()
    ours = getattr(read(**variables), signal)
    client = official._client
    theirs = SimpleNamespace(url=official._endpoint, timeout=client._timeout, gzip=client._compression.name == "GZIP")
    official.shutdown()
    assert (ours.url, ours.timeout, ours.gzip) == (theirs.url, theirs.timeout, theirs.gzip)
    headers = {name.lower(): value for name, value in client._headers.items()}
    assert ours.headers.items() <= headers.items()
    assert {name for name in headers if name not in ("content-type", "user-agent", "content-encoding")} == set(
        ours.headers
    )


@pytest.mark.parametrize("value", ["none", "prometheus", "console, zipkin"])
def test_a_signal_whose_exporter_is_another_is_off(value):
    options = Options.from_environ(
        {"OTEL_METRICS_EXPORTER": value, "OTEL_LOGS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "console,otlp"}
    )
    assert (options.metrics, options.logs) == (None, None)
    assert [signal for signal, _ in options.targets()] == ["traces"]


def test_pace_and_temporality_come_from_their_variables():
    options = read(
        OTEL_BSP_SCHEDULE_DELAY="250",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="64",
        OTEL_METRIC_EXPORT_INTERVAL="1500",
        METRICS_TEMPORALITY_PREFERENCE="Delta",
    )
    assert (options.delay, options.batch_items, options.metrics_interval, options.temporality) == (
        0.25,
        64,
        1.5,
        "delta",
    )
    assert read(METRICS_TEMPORALITY_PREFERENCE="LOWMEMORY").temporality == "delta"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"TIMEOUT": "soon"}, "OTLP_TIMEOUT='soon' is not a number"),
        ({"TIMEOUT": "10000"}, "OTLP_TIMEOUT='10000' is not a number from 0.001 to 600"),
        ({"TIMEOUT": "nan"}, "OTLP_TIMEOUT='nan'"),
        ({"COMPRESSION": "zstd"}, "OTLP_COMPRESSION='zstd' is not gzip or none"),
        (
            {"ENDPOINT": "grpc://secret@collector"},
            "OTLP_ENDPOINT is not an http or https address such as http://localhost:4318",
        ),
        ({"ENDPOINT": "http://host:99999999"}, "OTLP_ENDPOINT is not an http or https address"),
        (
            {"METRICS_TEMPORALITY_PREFERENCE": "often"},
            "TEMPORALITY_PREFERENCE='often' is not cumulative, delta or lowmemory",
        ),
        ({"OTEL_BSP_SCHEDULE_DELAY": "-5"}, "OTEL_BSP_SCHEDULE_DELAY='-5'"),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"}, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE='0'"),
        ({"HEADERS": "secret-without-equals"}, "OTLP_HEADERS has an entry that is not name=value"),
        ({"HEADERS": "a=secret%0d%0aX: y"}, "OTLP_HEADERS has an entry"),
        ({"HEADERS": "b ad=secret"}, "OTLP_HEADERS has an entry"),
    ],
    ids=str,
)
def test_a_bad_value_warns_names_the_fix_and_falls_back(variables, said, caplog):
    assert read(**variables) == Options()
    (message,) = set(warned(caplog))
    assert said in message
    assert "secret" not in message


def test_another_protocol_warns_and_names_the_extra(caplog):
    assert read(PROTOCOL="grpc") == Options()
    (message,) = warned(caplog)
    assert "OTLP_PROTOCOL='grpc'" in message
    assert "insitu[otlp-grpc]" in message


def test_an_address_without_a_scheme_is_taken_as_http(caplog):
    assert read(ENDPOINT="collector:4318").traces.url == "http://collector:4318/v1/traces"
    assert len(warned(caplog)) == 1


def test_credentials_are_not_in_the_repr():
    assert "hunter2" not in repr(read(HEADERS="authorization=hunter2"))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [PREFIX + name for name in ("ENDPOINT", "HEADERS", "TIMEOUT", "LOGS_HEADERS", "TRACES_ENDPOINT")]
        ),
        st.text(max_size=30),
    )
)
def test_no_environment_raises(environ):
    logging.getLogger("insitu").disabled = True
    try:
        options = Options.from_environ(environ)
    finally:
        logging.getLogger("insitu").disabled = False
    for _, target in options.targets():
        assert target.url.lower().startswith(("http://", "https://"))
        assert not any("\r" in value or "\n" in value for value in target.headers.values())
