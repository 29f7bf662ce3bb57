"""What a row of the table of budgets is made of, and what came of measuring it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks import pace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOLERANCE: Final = 1.25
"""A gate fails above this many times the budget: machines that others share are not exact."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A figure, or what one figure has above another.

    Attributes:
        figure: `module:function` of a contender, with `.name` where its rounds return several.
        above: the figure that is taken off; "" takes nothing off.

    """

    figure: str
    above: str = ""

    def among(self, figures: Mapping[str, float]) -> float:
        """Return the cost; KeyError when it was not measured."""
        return figures[self.figure] - (figures[self.above] if self.above else 0.0)

    def needs(self) -> Iterator[str]:
        """Yield the figures."""
        yield self.figure
        if self.above:
            yield self.above


@dataclass(frozen=True, slots=True)
class Limit:
    """A share of the row's baseline, or a fixed amount in the row's unit."""

    share: float = 0.0
    plus: float = 0.0

    def among(self, figures: Mapping[str, float], baseline: Cost | None) -> float:
        """Return the limit in the row's unit."""
        return (self.share * baseline.among(figures) if baseline is not None and self.share else 0.0) + self.plus

    def text(self, unit: str) -> str:
        """Return it for people: `1/7`, `16 ×`, `20 ms`."""
        if not self.share:
            return f"{self.plus:g} {unit}"
        return f"{self.share:g} ×" if self.share > 1 else f"1/{1 / self.share:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        key: for `--only`; what stands before the first dot is measured together, in alternating rounds.
        what: for people, at most 51 characters.
        ours, baseline: the costs compared.
        budget, stretch: what ours may cost; a row without budget informs.
        unit: of both costs.
        once: whether one long round says enough.

    """

    key: str
    what: str
    ours: Cost
    baseline: Cost | None = None
    budget: Limit | None = None
    stretch: Limit | None = None
    unit: str = "µs"
    once: bool = False

    @property
    def group(self) -> str:
        """What is measured together with this row."""
        return self.key.partition(".")[0]

    def needs(self) -> list[str]:
        """Return every figure that the row is made of."""
        costs = [cost for cost in (self.ours, self.baseline) if cost is not None]
        figures = [figure for cost in costs for figure in cost.needs()]
        return [*figures, _PACE] if self.paced else figures

    @property
    def paced(self) -> bool:
        """Whether the budget is an amount of time, which a slower machine cannot keep."""
        return self.budget is not None and self.budget.plus > 0 and self.unit in {"ms", "µs"}


_PACE: Final = "pace:plain"


@dataclass(frozen=True, slots=True)
class Result:
    """A row with its figures.

    Attributes:
        row: what was measured.
        figures: every figure of the run.
        failure: why it could not be measured; "" when it could.

    """

    row: Row
    figures: Mapping[str, float]
    failure: str = ""

    @property
    def ours(self) -> float:
        """What insitu costs, in the row's unit."""
        return self.row.ours.among(self.figures)

    @property
    def baseline(self) -> float | None:
        """What the baseline costs, in the row's unit."""
        return self.row.baseline.among(self.figures) if self.row.baseline is not None else None

    def within(self, limit: Limit | None, tolerance: float = 1.0) -> bool:
        """Whether the cost stands below a limit."""
        return limit is not None and self.ours <= limit.among(self.figures, self.row.baseline) * tolerance

    @property
    def passes(self) -> bool:
        """Whether the gate lets it through."""
        slower = max(1.0, self.figures[_PACE] / pace.NOMINAL) if self.row.paced and not self.failure else 1.0
        return not self.failure and (self.row.budget is None or self.within(self.row.budget, TOLERANCE * slower))

    @property
    def verdict(self) -> str:
        """Say what came of it: `stretch`, `yes`, `nearly` (within the gate's tolerance), `NO`; "" without a budget."""
        if self.failure:
            return "FAILED"
        if self.row.budget is None:
            return ""
        if self.within(self.row.stretch):
            return "stretch"
        if self.within(self.row.budget):
            return "yes"
        return "nearly" if self.passes else "NO"
