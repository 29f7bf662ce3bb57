import io
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from examples.shop import page, report
from examples.shop.options import parse
from examples.shop.service import Brief
from examples.shop.terminal import WIDTH, Terminal
from examples.shop.traffic import Tally
from tests.servers import until

ROOT = Path(__file__).parents[2]
ROUTES = {
    "GET /",
    "GET /products",
    "GET /products/{number}",
    "GET /products/{number}/rating",
    "GET /products/{number}/similar",
    "GET /search",
    "GET /cart",
    "POST /cart/items",
    "POST /checkout",
    "GET /shipping/{country}",
    "GET /admin/orders.csv",
    "GET (no such route)",
}


class Run:
    def __init__(self, folder, *arguments):
        self.out, self.err = folder / "out", folder / "err"
        environment = os.environ | {"TMPDIR": str(folder)}
        for name in ("INSITU_DEMO_SECONDS", "INSITU_STORE"):
            environment.pop(name, None)
        with self.out.open("w") as out, self.err.open("w") as err:
            command = [sys.executable, "-m", "examples.shop", *arguments]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)

    def wait(self):
        return self.process.wait(60)

    def printed(self):
        return self.out.read_text()

    def until_traffic_flows(self):
        until(lambda: re.search(r"[1-9]\d* requests +[\d.]+ a second ", self.printed()), 40, "traffic")
        return psutil.Process(self.process.pid).children(recursive=True)

    def address(self):
        return re.search(r"http://[\d.:]+", self.printed())[0]


@contextmanager
def shop(folder, *arguments):
    run = Run(folder, *arguments)
    try:
        yield run
    finally:
        run.process.kill()  # its children see their standard input close
        run.process.wait(10)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with shop(tmp_path_factory.mktemp("shop"), "--seconds", "5", "--rate", "80") as run:
        assert run.wait() == 0, run.printed() + run.err.read_text()
        return run


def rows(text):
    pattern = r"^(GET|POST) +(/\S*|\(no such route\)) +([\d,]+) +[\d.]+ .*?(\d+|·) +(\d+|·)$"
    return {
        f"{method} {path}": (int(count.replace(",", "")), refused, failed)
        for method, path, count, refused, failed in re.findall(pattern, text, re.MULTILINE)
    }


def test_the_table_has_every_route_of_the_shop(finished):
    assert set(rows(finished.printed())) == ROUTES


def test_every_request_that_was_sent_is_counted_once(finished):
    found = re.search(r"([\d,]+) sent, ([\d,]+) measured", finished.printed())
    sent, measured = (int(count.replace(",", "")) for count in found.groups())
    assert 100 < sent == measured == sum(count for count, _, _ in rows(finished.printed()).values())


def test_nothing_is_dropped(finished):
    assert re.search(r"^dropped +0 of [1-9][\d,]* spans and [1-9][\d,]* log records$", finished.printed(), re.MULTILINE)


def test_a_slow_request_is_shown_with_its_trace(finished):
    name, took = re.search(
        r"^slow +(.+) took ([\d.]+) ms   trace [0-9a-f]{32}", finished.printed(), re.MULTILINE
    ).groups()
    assert name in ROUTES
    assert float(took) > 5


def test_most_checkouts_succeed(finished):
    count, refused, failed = rows(finished.printed())["POST /checkout"]
    assert int(refused.replace("·", "0")) <= count / 5
    assert failed == "·"


def test_the_last_line_of_progress_counts_every_request(finished):
    *_, progress = re.findall(r"^\d\d:\d\d +([\d,]+) requests .*", finished.printed(), re.MULTILINE)
    assert re.search(rf"^all +{progress} ", finished.printed(), re.MULTILINE)


def test_the_failures_of_the_shop_are_named_by_type(finished):
    errors = re.search(r"^errors +(.*)$", finished.printed(), re.MULTILINE)[1]
    found = Counter({name: int(count) for name, count in re.findall(r"(\w+) (\d+)", errors)})
    table = rows(finished.printed())
    assert found["ZeroDivisionError"] == int(table["GET /products/{number}/rating"][2]) > 0
    assert found["KeyError"] == int(table["GET /shipping/{country}"][2].replace("·", "0"))
    assert table["GET (no such route)"][1] == str(table["GET (no such route)"][0])


def test_the_cost_of_insitu_is_shown_and_is_small(finished):
    micros, percent = map(float, re.search(r"^  all +([\d.]+) +([\d.]+)$", finished.printed(), re.MULTILINE).groups())
    assert 0 < micros < 2000
    assert 0 < percent < 20


def test_nothing_is_wider_than_the_terminal_and_nothing_is_coloured_in_a_file(finished):
    assert max(map(len, finished.printed().splitlines())) <= WIDTH
    assert "\x1b" not in finished.printed()


def test_no_file_is_left_behind(finished):
    assert list(finished.out.parent.glob("shop-*")) == []


def test_the_addresses_answer_while_it_runs_and_ctrl_c_ends_everything_with_the_table(tmp_path):
    with shop(tmp_path, "--rate", "60") as run:
        children = run.until_traffic_flows()
        assert len(children) == 3
        assert page.read(httpx.get(f"{run.address()}/metrics", headers=page.ACCEPT).text).requests > 0
        assert httpx.get(f"{run.address()}/docs").status_code == 200
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 0
        assert re.search(r"^all +\d+", run.printed(), re.MULTILINE)
        assert not any(child.is_running() for child in children)


def test_no_process_outlives_a_demo_that_was_killed(tmp_path):
    with shop(tmp_path, "--rate", "60") as run:
        children = run.until_traffic_flows()
        run.process.kill()
        _, alive = psutil.wait_procs(children, timeout=15)
        assert alive == []


def test_a_service_that_dies_is_reported_and_takes_the_others_with_it(tmp_path):
    with shop(tmp_path, "--rate", "60", "--seconds", "30") as run:
        children = run.until_traffic_flows()
        (app,) = [child for child in children if "examples.shop.app:app" in child.cmdline()]
        app.kill()
        assert run.wait() == 1
        assert run.err.read_text().startswith("\nshop was ended by signal 9. Its last lines:\n")
        assert not any(child.is_running() for child in children)


def test_a_busy_port_is_named_with_the_way_out(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with shop(tmp_path, "--port", str(port)) as run:
            assert run.wait() == 1
    assert f"port {port} cannot be used" in run.err.read_text()
    assert "--port" in run.err.read_text()


def test_the_length_of_a_run_comes_from_the_environment_unless_it_is_given(monkeypatch):
    monkeypatch.setenv("INSITU_DEMO_SECONDS", "7")
    assert parse([]).seconds == 7
    assert parse(["--seconds", "3"]).seconds == 3
    monkeypatch.delenv("INSITU_DEMO_SECONDS")
    assert parse([]).seconds is None


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--rate", "many"], ["--rate", "nan"], ["--port", "65536"]])
def test_a_bad_option_is_refused_with_its_limits(arguments, capsys):
    with pytest.raises(SystemExit):
        parse(arguments)
    assert "is no number from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        (0.25, ("<", 0.01)),  # within the first bucket: only its bound is known
        (0.5, ("", 0.015)),
        (0.75, ("", 0.02)),
        (0.99, (">", 0.02)),
    ],
)
def test_a_quantile_lies_evenly_between_the_bounds_of_its_bucket(q, expected):
    sign, value = page.quantile(q, {0.01: 4, 0.02: 12, math.inf: 16})
    assert (sign, value) == (expected[0], pytest.approx(expected[1]))


def test_a_quantile_of_nothing_is_not_a_number():
    assert math.isnan(page.quantile(0.5, {})[1])
    assert math.isnan(page.quantile(0.5, {1.0: 0, math.inf: 0})[1])


@pytest.mark.parametrize(
    ("sign", "seconds", "text"),
    [("", 0.0049, "4.9"), ("", 0.00996, "10"), ("", 0.6088, "609"), ("<", 0.005, "< 5"), ("", math.nan, "–")],
)
def test_a_time_has_no_more_digits_than_a_histogram_can_give(sign, seconds, text):
    assert report.milliseconds(sign, seconds) == text


LABELS = 'http_request_method="GET",http_response_status_code="200",http_route="/a"'
PAGE = f"""\
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{{{LABELS},le="0.1"}} 19
http_server_request_duration_seconds_bucket{{{LABELS},le="+Inf"}} 19
http_server_request_duration_seconds_sum{{{LABELS}}} 0.38
http_server_request_duration_seconds_count{{{LABELS}}} 19
# TYPE insitu_records counter
insitu_records_total{{signal="traces"}} 40
insitu_records_total{{signal="logs"}} 5
# TYPE insitu_log_records counter
insitu_log_records_total{{level="info"}} 4
insitu_log_records_total{{level="error"}} 1
# TYPE insitu_cpu_seconds counter
insitu_cpu_seconds_total{{part="worker"}} 0.3
insitu_cpu_seconds_total{{part="request"}} 0.1
"""


def rendered(more="", requests=19, broken=0):
    tally = Tally(requests, seconds=1.0, rate=19.0, p95=0.1, failed=0, lost=0, broken=broken)
    seen = page.read(PAGE + more + "# EOF\n")
    return "\n".join(report.render(seen, tally, lambda text, *_: text))


def test_a_quantile_of_few_requests_is_not_shown():
    assert re.search(r"^GET   /a +19 +19\.0 +20 +< 100 +– +– ", rendered(), re.MULTILINE)


def test_log_records_are_listed_by_severity():
    assert re.search(r"^logs +error 1   info 4$", rendered(), re.MULTILINE)


def test_the_parts_of_the_cost_are_in_plain_words_and_in_one_order():
    assert re.findall(r"^  ([a-z ]+?)  ", rendered(), re.MULTILINE) == [
        "in the requests",
        "counting and cleaning",
        "all",
    ]


def test_without_an_exporter_nothing_is_said_of_one():
    assert "exported" not in rendered()


QUEUES = '# TYPE insitu_queue_size_bytes gauge\ninsitu_queue_size_bytes{queue="worker"} 0\n'
OTLP = QUEUES + 'insitu_queue_size_bytes{queue="otlp"} 9\n'


def test_a_collector_that_took_nothing_is_asked_after():
    text = "otlp 0 of 40 spans, 0 of 5 log records, 45 waiting   ✗ does anybody listen?"
    assert re.search(rf"^exported +{re.escape(text)}$", rendered(OTLP), re.MULTILINE)


def test_what_a_collector_took_is_counted_by_signal():
    sent = '# TYPE insitu_exported_records counter\ninsitu_exported_records_total{exporter="otlp",signal="traces"} 30\n'
    lost = """\
# TYPE insitu_dropped_records counter
insitu_dropped_records_total{exporter="otlp",signal="logs",reason="rejected"} 5
insitu_dropped_records_total{exporter="otlp",signal="traces",reason="rejected"} 2
"""
    text = "otlp 30 of 40 spans, 0 of 5 log records, 8 waiting, 7 dropped"
    assert re.search(rf"^exported +{text}$", rendered(OTLP + sent + lost), re.MULTILINE)


def test_an_exporter_of_logs_alone_is_not_held_to_spans():
    queue = QUEUES + 'insitu_queue_size_bytes{queue="log_output"} 0\n'
    sent = 'insitu_exported_records_total{exporter="log_output",signal="logs"} 5\n'
    text = rendered(f"{queue}# TYPE insitu_exported_records counter\n{sent}")
    assert re.search(r"^exported +log_output 5 of 5 log records$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("sent", "broken", "verdict"),
    [(19, 0, "✓ the same"), (18, 1, "✓ +1 (a connection broke)"), (18, 0, "✗ +1"), (20, 1, "✗ -1")],
)
def test_a_difference_between_sent_and_measured_is_explained_by_broken_connections_only(sent, broken, verdict):
    assert rendered(requests=sent, broken=broken).count(f"{sent} sent, 19 measured   {verdict}\n") == 1


def test_a_logged_exception_takes_one_line():
    try:
        raise KeyError("NO")
    except KeyError:
        record = logging.LogRecord("shop", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    assert re.fullmatch(r"failed\nKeyError: 'NO' \(test_shop\.py, line \d+\)", Brief().format(record))


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_progress_moves_in_place_and_has_colours_where_a_person_looks(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(screen := Screen())
    terminal.progress("one")
    terminal.progress("two")
    terminal.line(terminal.paint("end", "red"))
    assert screen.getvalue() == "\r\x1b[Kone\r\x1b[Ktwo\r\x1b[K\x1b[31mend\x1b[0m\n"


def test_a_reader_that_goes_away_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        terminal = Terminal(pipe)
        terminal.line("nobody reads this")
        terminal.line("nor this")
    assert terminal.gone


def test_no_color_is_honoured_on_a_terminal(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert Terminal(Screen()).paint("end", "red") == "end"
