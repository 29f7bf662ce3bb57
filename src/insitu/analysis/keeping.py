"""Which traces are worth keeping: decided at their end, each with a reason and a weight.

A trace belongs to one stratum, the first of REASONS that is true of it: it holds an error, it was flagged, it is the
first of its kind, it was slow for its route, or none of these, and then a steady share is kept. Each stratum has a
quota a window. How many were seen beside how many were kept (`Tally`) is what makes up for the rest: a kept trace
stands for `seen / kept` of its stratum and window (the Horvitz-Thompson estimator of a stratified sample), so that
rates and shares estimated from kept traces alone are right.

The steady share is a power of two of the trace id's random bits (OpenTelemetry's consistent probability sampling): of
two processes that keep at different rates, the one with the lower rate keeps what the other keeps too.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from insitu.core.histogram import Histogram
from insitu.core.records import UNDECIDED, Error, Family, Point

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from insitu.core.records import LocalTrace, SpanRecord

ERROR, FLAGGED, FIRST, SLOW, STEADY = REASONS = ("error", "flagged", "first", "slow", "steady")
"""Why a trace is kept, in the order in which they are asked."""
FLAG: Final = "insitu.keep"
"""Attribute of any span that flags its trace."""

_SHIFT: Final = 8
"""Lowest bit of the trace id that the steady share looks at; the budget's meter looks at those below."""
_DEEPEST: Final = 40
_GENERATION: Final = 2_000
_WARM: Final = (50, 150, 800, 1_000)
"""How many requests of a route make up its first generation: its limit is looked up after each of these as well."""
_ROUTES: Final = 1_000
_KINDS: Final = 4_096
_DECIDED: Final = 4_096


@dataclass(frozen=True, slots=True)
class Policy:
    """How much is kept.

    Attributes:
        window: nanoseconds of a window.
        quotas: most traces of each reason a window.
        slow: the share of a route's requests that counts as slow.
        patience: nanoseconds after which a trace whose root is still open is decided by what there is.

    """

    window: int = 10_000_000_000
    quotas: Mapping[str, int] = field(
        default_factory=lambda: {ERROR: 100, FLAGGED: 100, FIRST: 50, SLOW: 20, STEADY: 100}
    )
    slow: float = 0.01
    patience: int = 60_000_000_000


@dataclass(slots=True)
class Tally:
    """What was seen and kept of each reason in a window.

    Attributes:
        start, end: wall nanoseconds.
        seen, kept: traces by reason. Where none was kept, those that were seen stand in the next window.

    """

    start: int
    end: int = 0
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    kept: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))

    def weight(self, reason: str) -> float:
        """Return how many seen traces each kept one of this reason stands for."""
        return self.seen[reason] / self.kept[reason] if self.kept[reason] else 0.0


class Keeper:
    """Decides about one trace after the other. Used by one thread, the worker.

    Args:
        policy: how much.
        now: wall nanoseconds: the first window begins.

    Attributes:
        level: the steady share is `2 ** -level`.
        seen, kept: totals by reason, for `/metrics`.

    """

    def __init__(self, policy: Policy, now: int) -> None:
        self._policy = policy
        self.reset(now)

    def reset(self, now: int) -> None:
        """Begin anew: at the start, and in a forked child, whose parent has what was seen so far."""
        self.level = 0
        self.seen = dict.fromkeys(REASONS, 0)
        self.kept = dict.fromkeys(REASONS, 0)
        self._tally = Tally(now)
        self._closed: list[Tally] = []
        self._routes: dict[str, _Route] = {}
        self._kinds: set[tuple[str, str]] = set()
        self._decided: OrderedDict[int, str] = OrderedDict()

    def decide(self, traces: Iterable[LocalTrace], now: int) -> None:
        """Write into each trace's `kept` why it is kept, "" when it is not."""
        if now - self._tally.start >= self._policy.window:
            self.turn(now)
        for trace in traces:
            trace.kept = self._decision(trace, now) if trace.sampled and trace.spans else ""

    def turn(self, now: int) -> None:
        """Close the window, and choose the steady share of the next one by what came in this one."""
        rest, quota = self._tally.seen[STEADY], self._policy.quotas[STEADY]
        while self.level and rest >> (self.level - 1) <= quota // 2:
            self.level -= 1
        self._close(now)

    def closed(self) -> list[Tally]:
        """Return the windows that are closed since the last call."""
        closed, self._closed = self._closed, []
        return closed

    def collect(self) -> Iterable[Family]:
        """Return how many traces were seen and kept, by reason."""
        seen = [Point({"reason": reason}, number) for reason, number in self.seen.items()]
        kept = [Point({"reason": reason}, number) for reason, number in self.kept.items()]
        yield Family(
            "insitu.seen_traces", "counter", seen, help="Sampled traces that have ended, by what may keep them."
        )
        yield Family("insitu.kept_traces", "counter", kept, help="Traces that the local store keeps, by reason.")

    def _close(self, now: int) -> None:
        tally, self._tally = self._tally, Tally(now)
        tally.end = now
        for reason, kept in tally.kept.items():
            if not kept:
                self._tally.seen[reason], tally.seen[reason] = tally.seen[reason], 0
        if any(tally.seen.values()):
            self._closed.append(tally)

    # --- one trace ---

    def _decision(self, trace: LocalTrace, now: int) -> str:
        root = trace.spans[-1]
        if not root.local_root:
            return self._of_a_part(trace, now)
        earlier = self._decided.get(trace.trace_id)
        if earlier is not None:  # after a minute, or a second root in this process: a trace is kept whole
            return earlier
        reason = self._stratum(trace, root)
        return self._remembered(trace, reason) if self._has_room(reason, trace, now) else ""

    def _of_a_part(self, trace: LocalTrace, now: int) -> str:
        """Decide about spans that left before their root has ended, or end behind it."""
        earlier = self._decided.get(trace.trace_id)
        if earlier is not None:
            return earlier
        if now - trace.spans[0].start_time < self._policy.patience:
            return UNDECIDED
        reason = ERROR if trace.errors else STEADY
        return self._remembered(trace, reason) if self._has_room(reason, trace, now) else ""

    def _remembered(self, trace: LocalTrace, reason: str) -> str:
        self._decided[trace.trace_id] = reason
        if len(self._decided) > _DECIDED:
            self._decided.popitem(last=False)
        return reason

    def _stratum(self, trace: LocalTrace, root: SpanRecord) -> str:
        route = self._routes.get(root.name) or self._new_route(root.name)
        slow = route.is_slow(root.end_time - root.start_time)  # of every trace: the answer is learned from all of them
        if trace.errors or root.status_code == Error:
            return ERROR
        for span in trace.spans:
            if span.own is not None and span.own.get(FLAG):
                return FLAGGED
        if self._is_first(root):
            return FIRST
        return SLOW if slow else STEADY

    def _new_route(self, name: str) -> _Route:
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        route = self._routes[name] = _Route(1.0 - self._policy.slow)
        return route

    def _is_first(self, root: SpanRecord) -> bool:
        kind = (root.name, root.outcome())
        if kind in self._kinds:
            return False
        if len(self._kinds) >= _KINDS:
            self._kinds.clear()
        self._kinds.add(kind)
        return True

    def _has_room(self, reason: str, trace: LocalTrace, now: int) -> bool:
        tally, quota = self._tally, self._policy.quotas[reason]
        tally.seen[reason] += 1
        self.seen[reason] += 1
        if reason == STEADY:
            if (trace.trace_id >> _SHIFT) & ((1 << self.level) - 1):
                return False
        elif tally.kept[reason] >= quota:
            return False
        tally.kept[reason] += 1
        self.kept[reason] += 1
        if reason == STEADY and tally.kept[STEADY] >= quota and self.level < _DEEPEST:
            self.level += 1
            self._close(now)  # within a window all have the same chance
        return True


class _Route:
    """How long the requests of one route take: a limit from the last generation of them.

    Args:
        quantile: the share of requests that are not slow.

    Attributes:
        limit: nanoseconds; infinity while too few were seen.

    """

    __slots__ = ("_durations", "_left", "_quantile", "_waits", "limit")

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self.limit = float("inf")
        self._durations = Histogram()
        self._waits = iter(_WARM)
        self._left = next(self._waits)

    def is_slow(self, duration: int) -> bool:
        """Whether a duration is above the limit; the duration is learned from."""
        slow = duration > self.limit
        self._durations.record(duration)
        self._left -= 1
        if not self._left:
            self._learn()
        return slow

    def _learn(self) -> None:
        self.limit = self._durations.quantile(self._quantile) * (1.0 + self._durations.relative_error)
        self._left = next(self._waits, 0)
        if not self._left:
            self._left, self._durations = _GENERATION, Histogram()
