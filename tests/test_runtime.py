"""The assembler: init and shutdown, providers, exporters, samplers, propagators, log output, and what a start costs."""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from opentelemetry import trace as otel_trace

import insitu
from insitu import runtime
from insitu.core import guard
from insitu.signals import tracing
from insitu.testing import recording
from tests.servers import until

RATIO = 1 / (1 << 64)


@pytest.fixture(autouse=True)
def _a_fresh_start():
    guard._last_logged.clear()
    yield
    insitu.shutdown(timeout=1)


@pytest.fixture(name="python")
def _python(tmp_path):
    """Runs a program in a process of its own, in an empty folder, and returns the process."""

    def python(program, *, code=0, path=(), **environ):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INSITU_", "OTEL_"))}
        found = [*map(str, path), *filter(None, [kept.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=tmp_path,
            env=kept | {"PYTHONPATH": os.pathsep.join(found)} | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    return python


def package(folder, name, group, entries, source):
    """Put a distribution with entry points and one module into a folder."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    listed = "".join(f"{entry} = {target}\n" for entry, target in entries.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{listed}")
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    return folder


def test_a_process_that_only_counts_tells_others_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("INSITU_INSTANCE", "here")
    insitu.init(service="jobs", store=str(tmp_path), libraries=(), exporters=())
    assert not runtime.current().pipeline.worker.running
    insitu.counter("jobs").add(1)
    until(lambda: list(tmp_path.glob("jobs/named-here/*.val")), what="a slot")


# --- init and shutdown


def test_init_twice_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    insitu.init(service="one", exporters=(), libraries=())
    first = runtime.current()
    insitu.init(service="two", exporters=(), libraries=())
    assert runtime.current() is first
    assert first.options.service.name == "one"


def test_before_init_and_after_shutdown_every_call_is_a_no_op():
    counter = insitu.counter("early", labels=("plan",))

    def use():
        with insitu.span("early") as span:
            span.set(a=1)
        counter.add(1, plan="x")
        insitu.log.info("early")
        insitu.message("early")
        insitu.capture(ValueError())
        with insitu.bind(user=1):
            pass
        return insitu.trace(lambda: 7)()

    assert use() == 7
    assert insitu.flush() is True
    assert insitu.shutdown() is True
    with recording() as recorded:
        assert recorded.records == []
    assert use() == 7
    with pytest.raises(RuntimeError, match="init"):
        runtime.current()


def test_what_was_made_before_init_works_after_it_and_again_after_shutdown():
    tracer, counter = otel_trace.get_tracer("early"), insitu.counter("before_init")
    for _ in range(2):
        with recording() as recorded:
            with tracer.start_as_current_span("by the api"):
                counter.add(2)
            assert recorded.span("by the api").scope.name == "early"
            assert recorded.point("before_init").value == 2
        assert otel_trace.get_tracer_provider() is tracing.provider


def test_shutdown_is_idempotent_and_leaves_logging_as_it_was():
    before = logging.Logger.callHandlers
    insitu.init(exporters=(), libraries=())
    assert logging.Logger.callHandlers is not before
    assert insitu.shutdown()
    assert insitu.shutdown()
    assert logging.Logger.callHandlers is before


@pytest.mark.parametrize("variable", ["INSITU_DISABLED", "OTEL_SDK_DISABLED"])
def test_switched_off_nothing_is_installed_at_all(python, variable):
    python(
        """
        import logging, threading
        from opentelemetry import trace
        import insitu
        before = logging.Logger.callHandlers, type(trace.get_tracer_provider())
        insitu.init(service="shop", exporters=("console",))
        async def app(*_): ...
        assert insitu.instrument(app) is app
        with insitu.span("x"): insitu.log.info("x")
        assert (logging.Logger.callHandlers, type(trace.get_tracer_provider())) == before
        assert threading.active_count() == 1
        assert insitu.trace_id() == ""
        """,
        **{variable: "true"},
    )


def test_what_is_no_application_is_given_back_with_a_warning(caplog):
    with recording():
        assert insitu.instrument(5) == 5
    assert "a int is no application" in caplog.text


# --- what a start costs


def test_neither_import_nor_init_loads_the_sdk_or_much_else(python):
    done = python(
        """
        import json, sys
        import fastapi, uvicorn  # what an application has loaded anyway
        before = set(sys.modules)
        import insitu
        imported = set(sys.modules) - before
        insitu.init(service="shop")
        print(json.dumps([sorted(imported), sorted(set(sys.modules) - before)]))
        """
    )
    imported, started = json.loads(done.stdout)
    heavy = re.compile(r"opentelemetry\.sdk|prometheus_client|urllib3|requests|google|grpc|numpy|flask|django")
    assert [name for name in started if heavy.match(name)] == []
    foreign = {name.partition(".")[0] for name in imported} - {"insitu"} - set(sys.stdlib_module_names)
    foreign = {name for name in foreign if not name.startswith("_sysconfigdata")}
    print(f"{len(imported)} modules by import, {len(started)} with init; foreign packages: {sorted(foreign)}")
    assert foreign <= {"opentelemetry", "psutil", "orjson", "wrapt"}
    assert len([name for name in imported if not name.startswith("insitu")]) <= 60


# --- providers


def test_a_provider_that_was_there_first_is_joined(python):
    done = python(
        """
        import logging
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        theirs = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(theirs))
        trace.set_tracer_provider(provider)
        logging.basicConfig()
        from insitu.testing import recording
        with recording() as recorded:
            with trace.get_tracer("app").start_as_current_span("joined", attributes={"a": 1}):
                pass
            ours = recorded.span("joined")
        assert trace.get_tracer_provider() is provider
        (span,) = theirs.get_finished_spans()
        assert ours.span_id == span.context.span_id
        assert ours.attributes["a"] == 1
        """
    )
    assert done.stderr.count("a tracer provider is set already; insitu joined it") == 1


# --- exporters


def test_a_standard_variable_switches_its_exporter_on():
    address = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}
    with recording(environ=address, exporters=None) as recorded:
        assert [sender.name for sender in recorded.runtime.pipeline.senders] == ["otlp"]
    with recording(exporters=None) as recorded:
        assert recorded.runtime.pipeline.senders == []
    with recording(environ=address, exporters=()) as recorded:
        assert recorded.runtime.pipeline.senders == []


def test_an_unknown_exporter_is_named_with_those_there_are(caplog):
    with recording(exporters=("zipkin", "console")) as recorded:
        assert [sender.name for sender in recorded.runtime.pipeline.senders] == ["console"]
    assert "there is no exporter zipkin; there are: console, otlp" in caplog.text


def test_exporters_that_cannot_be_loaded_or_made_cost_only_themselves(python, tmp_path):
    source = """
        def broken(context): raise RuntimeError("cannot be made")
        def good(context):
            class Exporter:
                name, batch_items, delay, metrics_interval = "good", 10, 0.01, None
                def encode(self, records):
                    from insitu.core.ports import Part
                    return [Part("traces", 1, 1, b"")]
                def encode_metrics(self, families): return ()
                def send(self, signal, parts, timeout):
                    from insitu.core.ports import Delivery
                    print("sent", signal, context.resource.attributes["service.name"])
                    return Delivery(len(parts))
                def close(self): print("closed")
            return Exporter()
        """
    entries = {"broken": "bring:broken", "good": "bring:good", "gone": "no_such_module:create"}
    folder = package(tmp_path / "site", "bring", "insitu.exporters", entries, source)
    done = python(
        """
        import logging, insitu
        logging.basicConfig()
        insitu.init(service="shop", exporters=("broken", "gone", "good"))
        with insitu.span("x"): pass
        assert insitu.flush()
        assert insitu.shutdown()
        """,
        path=[folder],
    )
    assert done.stdout == "sent traces shop\nclosed\n"
    assert "cannot be made" in done.stderr
    assert "no_such_module" in done.stderr


# --- propagators and samplers

INJECT = """
    import json, insitu
    insitu.init(service="shop")
    from opentelemetry import propagate, baggage  # not before: the API's import fails for a name that is not installed
    with insitu.span("out"):
        headers = {}
        propagate.inject(headers, baggage.set_baggage("k", "v"))
    print(json.dumps(sorted(headers)))
"""
B3 = """
    from opentelemetry.propagators.textmap import TextMapPropagator
    class B3(TextMapPropagator):
        fields = {"b3"}
        def inject(self, carrier, context=None, setter=None): carrier["b3"] = "1"
        def extract(self, carrier, context=None, getter=None): return context
    """


@pytest.mark.parametrize(
    ("names", "headers"),
    [
        ("", ["baggage", "traceparent"]),
        ("tracecontext", ["traceparent"]),
        ("baggage", ["baggage"]),
        ("none", []),
        ("b3,tracecontext", ["b3", "traceparent"]),
    ],
)
def test_the_propagators_asked_for_write_their_headers(python, tmp_path, names, headers):
    folder = package(tmp_path / "site", "bring", "opentelemetry_propagator", {"b3": "bring:B3"}, B3)
    done = python(INJECT, path=[folder], OTEL_PROPAGATORS=names)
    assert json.loads(done.stdout) == headers


def test_a_propagator_that_is_not_installed_is_named_and_the_others_work(python):
    done = python(
        "\n    import logging\n    logging.basicConfig()" + INJECT, OTEL_PROPAGATORS="tracecontext,no_such_format"
    )
    assert json.loads(done.stdout) == ["traceparent"]
    assert "OTEL_PROPAGATORS names no_such_format, which is not installed" in done.stderr


@pytest.mark.parametrize(
    ("sampler", "argument", "share"),
    [
        ("always_on", "", 1.0),
        ("always_off", "", 0.0),
        ("traceidratio", "0.25", 0.25),
        ("parentbased_always_on", "", 1.0),
        ("parentbased_always_off", "", 0.0),
        ("parentbased_traceidratio", "0.25", 0.25),
        ("PARENTBASED_TRACEIDRATIO", "0.25", 0.25),
        ("traceidratio", "lots", 1.0),
        ("no_such_sampler", "", 1.0),
    ],
)
def test_the_sampler_asked_for_decides(sampler, argument, share):
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    with recording(environ=environ) as recorded:
        for _ in range(400):
            with insitu.span("root"):
                pass
        found = len(recorded.spans) / 400
    print(f"{sampler} {argument}: {found:.3f} of {share}")
    assert found == share if share in (0, 1) else abs(found - share) < 0.12


def test_a_sampler_that_is_not_known_is_named(caplog):
    with recording(environ={"OTEL_TRACES_SAMPLER": "zebra"}):
        pass
    assert "OTEL_TRACES_SAMPLER=zebra is not known; use one of always_on" in caplog.text


def test_resource_attributes_reach_the_resource():
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "team=blue%20one,service.version=3", "OTEL_SERVICE_NAME": "shop"}
    with recording(environ=environ, service=None, environment="qa") as recorded:
        found = recorded.runtime.resource.attributes
    expected = {
        "service.name": "shop",
        "service.version": "3",
        "deployment.environment.name": "qa",
        "team": "blue one",
        "telemetry.sdk.name": "insitu",
        "telemetry.sdk.language": "python",
        "process.pid": os.getpid(),
    }
    assert expected.items() <= found.items()


# --- log output


def lines_of(output):
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("where", ["stdout", "stderr", "logs/app.jsonl"])
def test_log_output_writes_json_lines_with_the_ids_of_the_request(python, tmp_path, where):
    (tmp_path / "logs").mkdir()
    done = python(
        """
        import logging, insitu
        insitu.init(service="shop")
        logging.warning("outside %d", 1, extra={"when": {1}})
        with insitu.span("work") as span:
            insitu.bind(user=7, tenant="north", request="r-1", session="s-1")
            insitu.log.info("inside", order=3, password="hunter2swordfish")
            ids = span.get_span_context()
            try: 1 / 0
            except ZeroDivisionError: logging.getLogger("shop.pay").exception("failed")
        insitu.shutdown()
        open("ids", "w").write(f"{ids.trace_id:032x} {ids.span_id:016x}")
        """,
        INSITU_LOG_OUTPUT=where,
        PYTHONWARNINGS="error",
    )
    text = {"stdout": done.stdout, "stderr": done.stderr}.get(where)
    text = (tmp_path / where).read_text() if text is None else text
    outside, inside, failed = lines_of("\n".join(line for line in text.splitlines() if line.startswith("{")))
    trace_id, span_id = (tmp_path / "ids").read_text().split()
    about = {"message": "outside 1", "level": "WARNING", "service": "shop", "logger": "root"}
    assert about.items() <= outside.items()
    assert "trace_id" not in outside
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", outside["timestamp"])
    expected = {
        "trace_id": trace_id,
        "span_id": span_id,
        "message": "inside",
        "order": 3,
        "password": "[redacted]",
        "user.id": 7,
        "tenant.id": "north",
        "request.id": "r-1",
        "session.id": "s-1",
    }
    assert expected.items() <= inside.items()
    assert failed["exception.type"] == "ZeroDivisionError"
    assert failed["logger"] == "shop.pay"
    assert failed["exception.stacktrace"].startswith("Traceback")
    assert failed["trace_id"] == trace_id


def test_a_log_output_that_cannot_be_written_warns_and_is_counted(tmp_path, caplog):
    with recording(log_output=str(tmp_path / "no" / "such" / "folder")) as recorded:
        insitu.log.info("lost")
        assert insitu.flush(timeout=1) is False
        (sender,) = recorded.runtime.pipeline.senders
    assert sum(sender.dropped.values()) == 1
    assert "cannot be written" in caplog.text


# --- signals, exit


def test_sigterm_delivers_when_asked_and_the_process_still_ends_by_it(python):
    program = """
        import os, signal, insitu
        insitu.init(service="job")
        insitu.log.info("last words")
        os.kill(os.getpid(), signal.SIGTERM)
        """
    asked = python(program, code=-signal.SIGTERM, INSITU_LOG_OUTPUT="stdout", INSITU_SIGNALS="true")
    assert [line["message"] for line in lines_of(asked.stdout)] == ["last words"]
    assert python(program, code=-signal.SIGTERM, INSITU_LOG_OUTPUT="stdout").stdout == ""


def test_a_handler_of_the_hosts_own_stays(monkeypatch):
    handler = signal.signal(signal.SIGTERM, mine := lambda *_: None)
    try:
        with recording(signals=True):
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_what_was_logged_last_is_delivered_when_the_process_ends(python):
    done = python("import insitu\ninsitu.init()\ninsitu.log.info('bye')\n", INSITU_LOG_OUTPUT="stdout")
    assert [line["message"] for line in lines_of(done.stdout)] == ["bye"]


# --- the public face, end to end


def test_bind_reaches_every_signal_and_ends_with_its_block():
    with recording() as recorded:
        with insitu.span("work"):
            with insitu.bind(user=7, tenant="north", shop="x", nothing=None):
                insitu.log.info("inside")
                insitu.capture(ValueError("bad"))
            insitu.log.info("after")
        with insitu.bind(tenant="south"):
            insitu.log.info("no trace")
        logs = {record.body: record.attributes or {} for record in recorded.logs}
    assert logs["inside"].items() >= {"user.id": 7, "tenant.id": "north", "shop": "x"}.items()
    assert "nothing" not in logs["inside"]
    assert "user.id" not in logs["after"]
    assert logs["no trace"] == {"tenant.id": "south"}


def test_bind_without_a_block_stays_for_the_trace_and_no_longer():
    with recording() as recorded:
        with insitu.span("one"):
            insitu.bind(tenant="north")
            insitu.log.info("in one")
        with insitu.span("two"):
            insitu.log.info("in two")
        assert recorded.span("one").attributes["tenant.id"] == "north"
        assert "tenant.id" not in recorded.span("two").attributes
        assert [("tenant.id" in (record.attributes or {})) for record in recorded.logs] == [True, False]


def test_trace_id_is_that_of_the_current_span():
    with recording() as recorded:
        assert insitu.trace_id() == ""
        with insitu.span("work"):
            found = insitu.trace_id()
        assert found == f"{recorded.traces[0].trace_id:032x}"


def test_message_and_capture_are_recorded_with_their_trace():
    with recording() as recorded:
        with insitu.span("work"):
            insitu.message("stock is low", level="warning", item=3)
            try:
                raise KeyError("item")
            except KeyError as error:
                insitu.capture(error, order=5)
        insitu.capture(ValueError("alone"), order=6)
        insitu.capture("no exception")
        (message,) = recorded.logs
        inside, alone = recorded.errors
        assert (message.body, message.level, message.attributes["item"]) == ("stock is low", "WARNING", 3)
        assert message.trace_id == inside.trace_id == recorded.traces[0].trace_id
        assert (inside.type, inside.handled) == ("KeyError", True)
        assert inside.frames[-1].code.co_name == "test_message_and_capture_are_recorded_with_their_trace"
        assert (alone.type, alone.message, alone.attributes) == ("ValueError", "alone", {"order": 6})
        assert recorded.span("work").events[0].attributes["order"] == 5


def test_many_threads_may_call_init_at_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr(runtime, "adopt", lambda made, adopt=runtime.adopt: (started.append(made), adopt(made)))
    threads = [threading.Thread(target=insitu.init, kwargs={"exporters": (), "libraries": ()}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1


def test_a_blocked_event_loop_is_reported_with_who_blocked_it():
    def report():
        time.sleep(1.2)

    def told(recorded):
        return [log for log in recorded.logs if "event loop blocked" in log.body]

    async def serve(recorded):
        recorded.runtime.resources.attach_loop()
        insitu.log.info("the worker runs from here on")
        await asyncio.sleep(0.05)
        report()
        async with asyncio.timeout(10):
            while not told(recorded):
                await asyncio.sleep(0.05)

    with recording(threads=True) as recorded:
        asyncio.run(serve(recorded))
        found = told(recorded)[0]
        print(found.body)
        assert found.body.endswith("in test_a_blocked_event_loop_is_reported_with_who_blocked_it.<locals>.report")
        assert found.attributes["insitu.blocked"] > 0.1
