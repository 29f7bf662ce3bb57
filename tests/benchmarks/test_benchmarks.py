import importlib
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import budgets, harness, report
from benchmarks.rows import Cost, Limit, Result, Row

ROOT = Path(__file__).resolve().parents[2]
CONTENDERS = harness.contenders_of(figure for row in budgets.ROWS for figure in row.needs())
NOT_IN_TESTS = {"records"}  # needs python-json-logger, which the tests' environment lacks


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=harness.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_no_two_rows_have_the_same_key():
    assert [key for key, times in Counter(row.key for row in budgets.ROWS).items() if times > 1] == []


def test_rows_that_are_measured_together_stand_together():
    groups = [row.group for row in budgets.ROWS]
    assert groups == sorted(groups, key=groups.index)


@pytest.mark.parametrize("row", budgets.ROWS, ids=lambda row: row.key)
def test_a_row_fits_into_the_table(row):
    figures = dict.fromkeys(row.needs(), 123.456)
    cells = report.cells(Result(row, figures))
    assert [cell for cell, width in zip(cells, report.WIDTHS, strict=True) if len(cell) > width] == []


@pytest.mark.parametrize("row", budgets.ROWS, ids=lambda row: row.key)
def test_a_budget_that_is_a_share_has_a_baseline(row):
    assert row.baseline is not None or row.budget is None or row.budget.share == 0


@pytest.mark.parametrize("row", budgets.ROWS, ids=lambda row: row.key)
def test_a_stretch_asks_for_no_more_than_the_budget(row):
    figures = dict.fromkeys(row.needs(), 1_000.0)
    if row.stretch is not None:
        assert row.stretch.among(figures, row.baseline) <= row.budget.among(figures, row.baseline)


@pytest.mark.parametrize("contender", [name for name in CONTENDERS if name.split(":")[0] not in NOT_IN_TESTS])
def test_every_contender_exists(contender):
    module, _, function = contender.partition(":")
    assert callable(getattr(importlib.import_module(f"benchmarks.{module}"), function))


def test_the_table_is_no_wider_than_110_columns():
    assert sum(report.WIDTHS) + len(report.WIDTHS) - 1 <= 110


SPAN = Row("a.b", "a span", Cost("ours"), Cost("theirs", above="bare"), Limit(share=1 / 4), Limit(share=1 / 5))


@pytest.mark.parametrize(
    ("ours", "verdict", "passes"), [(5, "stretch", True), (7, "yes", True), (9, "nearly", True), (11, "NO", False)]
)
def test_a_verdict_compares_with_what_the_baseline_adds(ours, verdict, passes):
    result = Result(SPAN, {"ours": ours, "theirs": 130, "bare": 100})
    assert (result.verdict, result.passes) == (verdict, passes)


def test_a_row_that_could_not_be_measured_does_not_pass():
    result = Result(SPAN, {}, "theirs: no such module")
    assert (result.verdict, result.passes) == ("FAILED", False)


@pytest.mark.parametrize(
    ("took", "pace", "passes"), [(120, 20, True), (130, 20, False), (130, 40, True), (260, 40, False), (130, 10, False)]
)
def test_an_amount_of_time_is_that_of_a_machine_as_fast_as_the_table_s(took, pace, passes):
    row = Row("a.b", "an answer", Cost("ours"), None, Limit(plus=100), unit="ms")
    assert row.needs() == ["ours", "pace:plain"]
    assert Result(row, {"ours": took, "pace:plain": pace}).passes == passes


def test_list_shows_every_row():
    done = command("--list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [row.key for row in budgets.ROWS]


def test_a_quick_run_prints_the_row():
    done = command("--quick", "--only", "metric.counter")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("counter, 2 labels by keyword")


def test_a_contender_that_fails_is_named_with_its_reason():
    figures, failures = harness.measure(["instruments:nobody"], harness.QUICK)
    assert figures == {}
    assert "nobody" in failures["instruments:nobody"]


def test_a_contender_has_none_of_our_settings(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("INSITU_SAMPLE", "0.5")
    assert [name for name in harness.environment() if name.startswith(("OTEL_", "INSITU_"))] == []


def test_the_table_replaces_only_what_stands_between_the_markers(tmp_path, monkeypatch):
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n<!-- bench:start -->\nold\n<!-- bench:end -->\nafter\n")
    monkeypatch.setattr(report, "DOCUMENT", page)
    report.write("bench", "new")
    assert page.read_text() == "before\n<!-- bench:start -->\nnew\n<!-- bench:end -->\nafter\n"


def test_rows_that_are_measured_together_agree_how_often():
    assert len({(row.group, row.once) for row in budgets.ROWS}) == len({row.group for row in budgets.ROWS})


def test_a_contender_whose_process_ends_is_named_with_its_status(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    _, failures = harness.measure(["instruments:insitu_counter"], harness.QUICK)
    assert failures == {"instruments:insitu_counter": "instruments:insitu_counter: ended with 1"}


class Rounds:
    """A contender whose rounds are known."""

    name = "ours:request"

    def __init__(self, *rounds):
        self._rounds = iter(rounds)

    def round(self, effort):
        return {f"{self.name}{key}": value for key, value in next(self._rounds).items()}


@pytest.mark.parametrize(
    ("rounds", "kept"),
    [
        ([{"": 3.0, ".ledger": 1.0}, {"": 2.0, ".ledger": 2.0}], {"": 2.0, ".ledger": 2.0}),
        ([{"": 2.0, ".ledger": 2.0}, {"": 3.0, ".ledger": 1.0}], {"": 2.0, ".ledger": 2.0}),
        ([{".caller": 3.0, ".whole": 5.0}, {".caller": 2.0, ".whole": 6.0}], {".caller": 2.0, ".whole": 5.0}),
    ],
    ids=["a better round", "a worse round", "figures that stand alone"],
)
def test_figures_that_belong_to_a_round_are_kept_from_one_round(rounds, kept):
    figures = {}
    contender = Rounds(*rounds)
    for _ in rounds:
        harness._turn(contender, 1.0, figures)
    assert figures == {f"{contender.name}{key}": value for key, value in kept.items()}
