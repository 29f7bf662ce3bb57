import io
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

from examples.shop import report
from examples.shop.options import parse
from examples.shop.terminal import WIDTH, Terminal
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
        environment.pop("INSITU_DEMO_SECONDS", None)
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
    assert re.search(r"^dropped +0 records", finished.printed(), re.MULTILINE)


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
        page = report.read(httpx.get(f"{run.address()}/metrics").text)
        assert page.requests > 0
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
    sign, value = report.quantile(q, {0.01: 4, 0.02: 12, math.inf: 16})
    assert (sign, value) == (expected[0], pytest.approx(expected[1]))


def test_a_quantile_of_nothing_is_not_a_number():
    assert math.isnan(report.quantile(0.5, {})[1])
    assert math.isnan(report.quantile(0.5, {1.0: 0, math.inf: 0})[1])


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
