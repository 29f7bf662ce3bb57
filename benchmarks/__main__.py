"""Measure every budget: `python -m benchmarks [--only ROW] [--quick] [--gate] [--write] [--list]`."""

from __future__ import annotations

import argparse
import sys
import time
from itertools import groupby
from typing import TYPE_CHECKING

from benchmarks import budgets, harness, peers, report, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.rows import Result, Row

RUNS = 3
"""A gate fails when a row is over its budget in two runs of this many."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when a gate fails or a row could not be measured."""
    given = _options(arguments)
    if given.peers:
        return peers.main(["--quick"] * given.quick + ["--write"] * given.write)
    selected = budgets.chosen(given.only)
    if given.list or not selected:
        print("\n".join(f"{row.key:<28} {row.what}" for row in selected or budgets.ROWS))
        return 0 if selected else 2
    results = measured(selected, harness.QUICK if given.quick else harness.FULL)
    lines = [report.cells(result) for result in results]
    print(report.terminal(report.HEAD, lines))
    for result in results:
        if result.failure:
            print(f"{result.row.key}: {result.failure}")
    if given.write:
        table = report.markdown(report.HEAD, lines)
        report.write("bench", f"{table}\n\nMeasured on {report.conditions()}")
    broken = _still_failing(results) if given.gate else [result for result in results if result.failure]
    for result in broken:
        print(f"over budget: {result.row.key} ({result.row.what})")
    return 1 if broken else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="ROW", help="rows whose key begins so; repeatable"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small rounds, to see that it works; the figures are noise"
    )
    parser.add_argument("--gate", action="store_true", help="exit 1 when a row breaks its budget in two of three runs")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument("--list", action="store_true", help="show the rows")
    parser.add_argument("--peers", action="store_true", help="measure other libraries instead (see benchmarks.peers)")
    return parser.parse_args(arguments)


def measured(selected: Iterable[Row], plan: harness.Plan) -> list[Result]:
    """Measure rows, group by group."""
    return [result for _, group in groupby(selected, lambda row: row.group) for result in _group(list(group), plan)]


def _group(group: list[Row], plan: harness.Plan) -> list[Result]:
    names = harness.contenders_of(figure for row in group for figure in row.needs())
    harness.progress(f"{group[0].group}: {', '.join(row.key for row in group)}")
    began = time.monotonic()
    once = harness.ONCE._replace(effort=plan.effort)
    figures, failures = harness.measure(names, once if group[0].once else plan)
    harness.progress(f"  {time.monotonic() - began:.0f} s")
    return [rows.Result(row, figures, _failure(row, failures)) for row in group]


def _failure(row: Row, failures: dict[str, str]) -> str:
    return "; ".join(failures[name] for name in harness.contenders_of(row.needs()) if name in failures)


def _still_failing(results: Iterable[Result]) -> list[Result]:
    """Measure what is over budget again; return what is so in two of three runs."""
    suspects = {result.row: 1 for result in results if not result.passes}
    last = {result.row: result for result in results}
    for _ in range(RUNS - 1):
        again = [row for row, failed in suspects.items() if failed == 1]
        if not again:
            break
        harness.progress(f"over budget, measured again: {', '.join(row.key for row in again)}")
        for result in measured(again, harness.FULL):
            last[result.row] = result
            suspects[result.row] += not result.passes
    return [last[row] for row, failed in suspects.items() if failed > 1]


if __name__ == "__main__":
    sys.exit(main())
