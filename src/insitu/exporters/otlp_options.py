"""What OpenTelemetry's environment variables say about OTLP: https://opentelemetry.io/docs/specs/otel/protocol/exporter/.

Read as the official Python exporter reads them, so that an application that changes over behaves the same. Where that
departs from the specification, the exporter is followed: OTEL_EXPORTER_OTLP_TIMEOUT is in seconds (the specification
says milliseconds), and a signal's own headers replace the general ones. A bad value warns, names the fix and falls
back; addresses and headers, which may carry credentials, are never repeated in a warning.

OTEL_EXPORTER_OTLP_INSECURE belongs to gRPC: over HTTP the address says it.
OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION has no effect: histograms have the bounds that /metrics shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, cast
from urllib.parse import unquote, urlsplit

from insitu.core import guard
from insitu.core.transport import checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from insitu.exporters.otlp_metrics import Temporality

SignalName = Literal["traces", "metrics", "logs"]

DEFAULT_ENDPOINT: Final = "http://localhost:4318"
_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_LONGEST_TIMEOUT: Final = 600.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where one signal goes.

    Attributes:
        url: with the signal's path.
        headers: sent with each request; not shown by `repr`.
        timeout: seconds for a request and its retries.
        gzip: whether bodies are compressed.
        certificate: file of authorities to trust instead of the system's.
        client_certificate, client_key: files, for servers that ask who we are.

    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    gzip: bool = False
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the OTLP exporter.

    Attributes:
        traces, metrics, logs: where each signal goes; None where it is switched off.
        batch_items: at most this many items a request.
        delay: seconds between requests while there is anything to send.
        metrics_interval: seconds between collections.
        temporality: of counters and histograms. OpenTelemetry's preference `lowmemory` is taken as `delta`: it differs
            in observable counters only, for which there is nothing to save here.

    """

    traces: Target | None = field(default_factory=lambda: Target(f"{DEFAULT_ENDPOINT}/v1/traces"))
    metrics: Target | None = field(default_factory=lambda: Target(f"{DEFAULT_ENDPOINT}/v1/metrics"))
    logs: Target | None = field(default_factory=lambda: Target(f"{DEFAULT_ENDPOINT}/v1/logs"))
    batch_items: int = 512
    delay: float = 5.0
    metrics_interval: float = 60.0
    temporality: Temporality = "cumulative"

    def targets(self) -> Iterator[tuple[SignalName, Target]]:
        """Yield the signals that are on."""
        for signal, target in (("traces", self.traces), ("metrics", self.metrics), ("logs", self.logs)):
            if target is not None:
                yield cast("SignalName", signal), target

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Options:
        """Return the options that these variables ask for.

        OTEL_{TRACES,METRICS,LOGS}_EXPORTER switches its signal off when it is set and does not name otlp; where only
        other signals have an endpoint, it is off as well unless that variable names otlp.
        """
        settings = _Settings(environ)
        return cls(
            traces=settings.target("traces"),
            metrics=settings.target("metrics"),
            logs=settings.target("logs"),
            batch_items=int(settings.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1, 100_000)),
            delay=settings.number("OTEL_BSP_SCHEDULE_DELAY", 5_000, 1, 3_600_000) / 1_000,
            metrics_interval=settings.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000, 1, 86_400_000) / 1_000,
            temporality=settings.temporality(),
        )


_ENDPOINTS: Final = tuple(f"{_PREFIX}{signal}ENDPOINT" for signal in ("", "TRACES_", "METRICS_", "LOGS_"))


class _Settings:
    """Reads variables; an empty one counts as unset, as OpenTelemetry's specification says."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def get(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    def of(self, signal: SignalName, name: str) -> tuple[str, str]:
        """Return the variable that holds for a signal, its own or else the general one, and its value."""
        own = f"{_PREFIX}{signal.upper()}_{name}"
        value = self.get(own)
        return (own, value) if value else (_PREFIX + name, self.get(_PREFIX + name))

    def target(self, signal: SignalName) -> Target | None:
        chosen = self.get(f"OTEL_{signal.upper()}_EXPORTER")
        if chosen:
            if not any(name.strip().startswith("otlp") for name in chosen.split(",")):
                return None
        elif self._names_others_only(signal):
            return None
        self._check_protocol(signal)
        certificate, client_certificate, key = (
            self.of(signal, name)[1] or None for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
        )
        name, _ = self.of(signal, "TIMEOUT")
        timeout = self.number(name, 10.0, 0.001, _LONGEST_TIMEOUT)
        url, headers, gzip = self._url(signal), self._headers(signal), self._gzip(signal)
        return Target(url, headers, timeout, gzip, certificate, client_certificate, key)

    def _names_others_only(self, signal: SignalName) -> bool:
        """Whether endpoints are given, and none of them is this signal's: whoever names one receiver means that one.

        The specification would send the rest to localhost, where nobody listens.
        """
        given = {name for name in _ENDPOINTS if self.get(name)}
        return bool(given) and f"{_PREFIX}ENDPOINT" not in given and f"{_PREFIX}{signal.upper()}_ENDPOINT" not in given

    def number(self, name: str, default: float, least: float, most: float) -> float:
        value = self.get(name)
        if not value:
            return default
        try:
            parsed = float(value)
        except ValueError:
            parsed = -1.0
        if least <= parsed <= most:
            return parsed
        message = "insitu: %s=%r is not a number from %g to %g; %g is used"
        guard.warn(name, message, name, value[:100], least, most, default)
        return default

    def temporality(self) -> Temporality:
        name = f"{_PREFIX}METRICS_TEMPORALITY_PREFERENCE"
        value = self.get(name).lower() or "cumulative"
        if value == "lowmemory":
            return "delta"
        if value in ("cumulative", "delta"):
            return cast("Temporality", value)
        guard.warn(name, "insitu: %s=%r is not cumulative, delta or lowmemory; cumulative is used", name, value[:100])
        return "cumulative"

    def _check_protocol(self, signal: SignalName) -> None:
        name, value = self.of(signal, "PROTOCOL")
        if value not in ("", "http/protobuf"):
            fix = "set it to http/protobuf (used now; its port is 4318), or install insitu[otlp-grpc] for gRPC"
            guard.warn(name, "insitu: %s=%r is not spoken by this exporter; " + fix, name, value[:100])

    def _url(self, signal: SignalName) -> str:
        """Return a signal's own address as it is given, or the general one with the signal's path."""
        own = f"{_PREFIX}{signal.upper()}_ENDPOINT"
        if value := self.get(own):
            return _address(own, value) or f"{DEFAULT_ENDPOINT}/v1/{signal}"
        base = self.get(f"{_PREFIX}ENDPOINT")
        base = (_address(f"{_PREFIX}ENDPOINT", base) if base else None) or DEFAULT_ENDPOINT
        return f"{base.rstrip('/')}/v1/{signal}"

    def _gzip(self, signal: SignalName) -> bool:
        name, value = self.of(signal, "COMPRESSION")
        if value.lower() not in ("", "none", "gzip"):
            guard.warn(name, "insitu: %s=%r is not gzip or none; bodies are sent uncompressed", name, value[:100])
        return value.lower() == "gzip"

    def _headers(self, signal: SignalName) -> dict[str, str]:
        name, value = self.of(signal, "HEADERS")
        return _headers(name, value)


def _address(name: str, value: str) -> str | None:
    """Return an http address, or None (and warn) for anything else."""
    if "://" not in value:
        guard.warn(name, "insitu: %s has no scheme; http:// is put before it", name)
        value = f"http://{value}"
    try:
        parts = urlsplit(value)
        usable = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if usable:
        return value
    guard.warn(name, "insitu: %s is not an http or https address such as %s, which is used", name, DEFAULT_ENDPOINT)
    return None


def _headers(name: str, value: str) -> dict[str, str]:
    """Parse `name=value,name2=value2`, percent-encoded as in W3C baggage; raw values are taken too, as elsewhere."""
    headers: dict[str, str] = {}
    for item in value.split(","):
        if not item.strip():
            continue
        key, _, content = item.partition("=")
        try:
            headers |= checked({unquote(key).strip().lower(): unquote(content).strip()} if "=" in item else {"": ""})
        except ValueError:
            guard.warn(name, "insitu: %s has an entry that is not name=value, percent-encoded; it is left out", name)
    return headers
