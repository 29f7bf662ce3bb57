"""The head decision: whether a trace is recorded at all. Asked once, at the local root; children follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from insitu.core import guard
from insitu.core.context import tracestate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOW_64_BITS: Final = (1 << 64) - 1


class Decision(NamedTuple):
    """Whether exporters get the trace, whether its spans record at all, and what a sampler adds to the root."""

    sampled: bool
    recording: bool
    attributes: Mapping[str, Any] | None = None
    state: str | None = None


_SAMPLED: Final = Decision(sampled=True, recording=True)
_DROPPED: Final = Decision(sampled=False, recording=False)


class Ratio:
    """Samples a share of traces, as a function of the trace id, so that all processes agree.

    Args:
        share: 0..1. The low 64 bits of the trace id are compared with it, as OpenTelemetry's TraceIdRatioBased does.
        parent_based: whether the decision of a remote parent is followed.

    """

    __slots__ = ("_parent_based", "bound")

    def __init__(self, share: float = 1.0, *, parent_based: bool = True) -> None:
        self.bound = round(share * (LOW_64_BITS + 1))
        self._parent_based = parent_based

    def decide(
        self, trace_id: int, parent: tuple[int, int, int, str] | None, name: str, kind: SpanKind, attributes: Any
    ) -> Decision:
        """Return the decision for a local root; `parent` is (trace id, span id, flags, tracestate) of a remote one."""
        del name, kind, attributes
        if parent is not None and self._parent_based:
            return _SAMPLED if parent[2] & 1 else _DROPPED
        return _SAMPLED if trace_id & LOW_64_BITS < self.bound else _DROPPED


class Custom:
    """A sampler of OpenTelemetry's SDK, brought by the user; one that raises samples everything."""

    __slots__ = ("_sampler",)

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def decide(
        self, trace_id: int, parent: tuple[int, int, int, str] | None, name: str, kind: SpanKind, attributes: Any
    ) -> Decision:
        """Ask the user's sampler."""
        return guard.call("sampler", self._ask, trace_id, parent, name, kind, attributes, default=_SAMPLED)

    def _ask(
        self, trace_id: int, parent: tuple[int, int, int, str] | None, name: str, kind: SpanKind, attributes: Any
    ) -> Decision:
        above = None
        if parent is not None:
            remote = SpanContext(
                parent[0],
                parent[1],
                is_remote=True,
                trace_flags=TraceFlags(parent[2]),
                trace_state=tracestate(parent[3]),
            )
            above = set_span_in_context(NonRecordingSpan(remote))
        result = self._sampler.should_sample(above, trace_id, name, kind, attributes, ())
        state = result.trace_state.to_header() if result.trace_state is not None else None
        return Decision(result.decision.is_sampled(), result.decision.is_recording(), result.attributes or None, state)


Sampler = Ratio | Custom

_BY_NAME: Final[dict[str, tuple[float | None, bool]]] = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}


def from_names(name: str, argument: str, load: Callable[[str], Any]) -> Sampler | None:
    """Return the sampler that OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG ask for, or None with a warning.

    Args:
        name: one of OpenTelemetry's six, or an entry point of `opentelemetry_traces_sampler`.
        argument: the ratio, or whatever the named sampler's factory takes.
        load: finds the entry point's factory; None when there is none.

    """
    known = _BY_NAME.get(name.lower())
    if known is not None:
        share, parent_based = known
        return Ratio(_share(argument) if share is None else share, parent_based=parent_based)
    factory = load(name)
    made = guard.call("sampler", factory, argument) if factory is not None else None
    if made is None:
        guard.warn(
            "sampler",
            "insitu: OTEL_TRACES_SAMPLER=%s is not known; use one of %s. Everything is sampled.",
            name,
            ", ".join(_BY_NAME),
        )
        return None
    return Custom(made)


def _share(argument: str) -> float:
    try:
        share = float(argument)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        guard.warn(
            "sampler",
            "insitu: OTEL_TRACES_SAMPLER_ARG=%s is not a number from 0 to 1. Everything is sampled.",
            argument or "(empty)",
        )
        return 1.0
    return share
