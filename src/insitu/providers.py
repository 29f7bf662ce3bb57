"""insitu as OpenTelemetry's global providers and propagator; samplers, propagators and exporters by their names."""

from __future__ import annotations

import importlib
import os
import weakref
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs as otel_logs
from opentelemetry import metrics as otel_metrics
from opentelemetry import trace as otel_trace

from insitu.core import context, guard
from insitu.signals import tracing
from insitu.signals.logs import LoggerProvider, logs
from insitu.signals.meter import MeterProvider
from insitu.signals.metrics import registry
from insitu.signals.sampling import Ratio, Sampler, from_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.propagators.textmap import TextMapPropagator

    from insitu.config import TracingOptions
    from insitu.core.ports import Exporter, ExporterContext

STANDARD_VARIABLES: Final = {
    "otlp": (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    )
}
"""Exporters that switch themselves on when one of their own standard variables is set."""


def become_global(propagator: TextMapPropagator, processor: Callable[[], Any]) -> None:
    """Become the global providers and propagator, once.

    Args:
        propagator: the global one from now on.
        processor: makes what is added to another tracer provider that is set already: its spans come to us.

    """
    if isinstance(otel_trace.get_tracer_provider(), otel_trace.ProxyTracerProvider):
        otel_trace.set_tracer_provider(tracing.provider)
    elif otel_trace.get_tracer_provider() is not tracing.provider:
        _join(otel_trace.get_tracer_provider(), processor)
    # The API keeps these two proxies' classes private.
    if type(otel_metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider":
        otel_metrics.set_meter_provider(MeterProvider(registry))
    if type(otel_logs.get_logger_provider()).__name__ == "ProxyLoggerProvider":
        otel_logs.set_logger_provider(LoggerProvider(logs))
    _propagate().set_global_textmap(propagator)


def propagator_of(names: tuple[str, ...]) -> TextMapPropagator:
    """Return the propagator of these formats; one that is not installed is named, and the others work."""
    return context.propagator(names, _propagator)


def exporters_of(
    names: tuple[str, ...] | None, environ: Mapping[str, str]
) -> Iterator[Callable[[ExporterContext], Exporter]]:
    """Yield what makes each exporter; None stands for those whose own variable is set. One that is unknown is told."""
    if names is None:
        names = tuple(name for name, own in STANDARD_VARIABLES.items() if any(environ.get(each) for each in own))
    found = {entry.name: entry for entry in metadata.entry_points(group="insitu.exporters")}
    for name in names:
        factory = guard.call(f"exporter {name}", found[name].load) if name in found else None
        if factory is None:
            text = "insitu: there is no exporter %s; there are: %s"
            guard.warn(f"exporter {name}", text, name, ", ".join(sorted(found)))
        else:
            yield factory


def sampler_of(chosen: TracingOptions) -> Sampler:
    """Return the sampler that the options name, or else one for their share."""
    named = from_names(chosen.sampler, chosen.sampler_argument, _sampler_factory) if chosen.sampler else None
    return named if named is not None else Ratio(chosen.sample)


def _sampler_factory(name: str) -> Any:
    return _entry("opentelemetry_traces_sampler", name)


def _propagate() -> Any:
    """Return `opentelemetry.propagate`, which cannot be imported while OTEL_PROPAGATORS names what is not installed."""
    try:
        return importlib.import_module("opentelemetry.propagate")
    except ValueError:
        named = os.environ.pop("OTEL_PROPAGATORS")
        try:
            return importlib.import_module("opentelemetry.propagate")
        finally:
            os.environ["OTEL_PROPAGATORS"] = named


def _propagator(name: str) -> Any:
    if name == "none":
        return None
    made = _entry("opentelemetry_propagator", name)
    if made is None:
        guard.warn(f"propagator {name}", "insitu: OTEL_PROPAGATORS names %s, which is not installed", name)
        return None
    return made()


def _entry(group: str, name: str) -> Any:
    for entry in metadata.entry_points(group=group, name=name):
        return guard.call(f"{group} {name}", entry.load)
    return None


_joined: weakref.WeakSet[Any] = weakref.WeakSet()


def _join(other: Any, processor: Callable[[], Any]) -> None:
    add = getattr(other, "add_span_processor", None)
    if add is None:
        guard.warn(
            "provider",
            "insitu: a tracer provider of %s is set already; spans made through OpenTelemetry are not seen",
            type(other).__module__,
        )
        return
    if other in _joined:
        return
    _joined.add(other)
    guard.call(
        "provider.join",
        lambda: add(processor()),
    )
    guard.warn(
        "provider",
        "insitu: a tracer provider is set already; insitu joined it. Call insitu.init() first to pay for one only.",
    )
