"""The table, for a terminal of 110 columns and for docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Final

from benchmarks.harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.rows import Result

DOCUMENT: Final = ROOT / "docs" / "benchmarks.md"
HEAD: Final = ("what", "insitu", "baseline", "ratio", "budget", "stretch", "holds")
WIDTHS: Final = (51, 9, 9, 7, 7, 12, 8)
"""With a space between two columns: 109."""
LEFT: Final = (0, 6)
"""Columns of words; the others hold figures."""


def cells(result: Result) -> tuple[str, ...]:
    """Return one line of the table as texts."""
    row = result.row
    if result.failure:
        return (row.what, "", "", "", "", "", "FAILED")
    base = result.baseline
    compares = base is not None and (row.budget is None or row.budget.share > 0)
    return (
        row.what,
        _amount(result.ours, row.unit),
        _amount(base, row.unit) if base is not None else "",
        _ratio(result.ours, base) if compares and base is not None else "",
        row.budget.text(row.unit) if row.budget is not None else "",
        row.stretch.text(row.unit) if row.stretch is not None else "",
        result.verdict,
    )


def _amount(value: float, unit: str) -> str:
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f} {unit}"


def _ratio(ours: float, baseline: float) -> str:
    if ours <= 0:
        return "0"
    if not baseline:
        return ""
    return f"1/{baseline / ours:.1f}" if ours < baseline else f"{ours / baseline:.1f}"


def terminal(
    head: Sequence[str], lines: Iterable[Sequence[str]], widths: Sequence[int] = WIDTHS, left: Sequence[int] = LEFT
) -> str:
    """Return a table for a terminal."""
    rule = ["-" * width for width in widths]
    return "\n".join(_line(line, widths, left) for line in (head, rule, *lines))


def _line(line: Sequence[str], widths: Sequence[int], left: Sequence[int]) -> str:
    padded = [
        f"{cell:<{width}}" if column in left else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return " ".join(padded).rstrip()


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], left: Sequence[int] = LEFT) -> str:
    """Return a table for docs/benchmarks.md."""
    rule = ["---" if column in left else "--:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def conditions() -> str:
    """Say what the figures were measured on, in one line."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("fastapi", "opentelemetry-sdk"))
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"CPython {platform.python_version()}, {machine}; {versions}."


def write(marker: str, text: str) -> None:
    """Put `text` between the markers `<!-- MARKER:start -->` and `<!-- MARKER:end -->` of docs/benchmarks.md."""
    page = DOCUMENT.read_text(encoding="utf-8")
    start, end = f"<!-- {marker}:start -->\n", f"<!-- {marker}:end -->"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{DOCUMENT} has no markers {start.strip()} and {end}")
    DOCUMENT.write_text(f"{before}{start}{text}\n{end}{after}", encoding="utf-8")
