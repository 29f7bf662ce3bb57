"""OTLP over HTTP, as protobuf: traces, metrics and logs to an OpenTelemetry Collector, or to what speaks its protocol.

Requests, answers and retries: https://opentelemetry.io/docs/specs/otlp/#otlphttp. Everything is encoded on the worker,
piece by piece and once; a request is the resource's bytes with the pieces behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from insitu.core import guard
from insitu.core.ports import Delivery, Part
from insitu.core.records import LocalTrace, LogRecord, Scope
from insitu.core.transport import Transport
from insitu.exporters import otlp_encoding
from insitu.exporters.otlp_metrics import Encoder, Metric
from insitu.exporters.otlp_options import Options, Target
from insitu.exporters.protobuf import INT64_MAX, fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from insitu.core.ports import ExporterContext, Spool
    from insitu.core.records import ErrorRecord, Family, Record, Resource, Signal, SpanRecord
    from insitu.core.transport import Reply

CONTENT_TYPE: Final = "application/x-protobuf"
PART_BYTES: Final = 1024 * 1024
"""What would give a larger part is halved."""
REQUEST_BYTES: Final = 4 * 1024 * 1024
"""What would give a larger request becomes several: receivers refuse large ones (the Collector 20 MiB) as a whole."""

_TO_KEEP: Final = frozenset(("unreachable", "stopped"))
"""What may go better later; what is refused is refused again."""
_PART_OVERHEAD: Final = 200
_LONGEST_QUOTE: Final = 200
_ERRORS_LOGGER: Final = "insitu"
_PARTIAL_SUCCESS, _REJECTED, _ERROR_MESSAGE = 1, 1, 2  # fields of Export…ServiceResponse and Export…PartialSuccess
_STATUS_MESSAGE: Final = 2  # field of google.rpc.Status, the body of a refusal


def create(context: ExporterContext) -> Exporter:
    """Return the exporter that the environment asks for: the factory behind the entry point `otlp`."""
    options = Options.from_environ(context.environ)
    spool = context.spool(Exporter.name)
    return Exporter(options, context.resource, monotonic=context.monotonic, wait=context.wait, spool=spool)


class Exporter:
    """The exporter `otlp` (see `core.ports.Exporter`).

    Errors that belong to no trace go out as log records. What cannot be encoded becomes a part without data, so that
    `send` counts it.

    Args:
        options: where to, how often and how much at once.
        resource: what every request says of this process.
        monotonic: seconds that never go back.
        wait: pauses between tries; True when the process is ending.
        spool: keeps what nobody took in time; None loses it.

    """

    name = "otlp"

    def __init__(
        self,
        options: Options,
        resource: Resource,
        *,
        monotonic: Callable[[], float],
        wait: Callable[[float], bool],
        spool: Spool | None = None,
    ) -> None:
        self._spool = spool
        self.batch_items = options.batch_items
        self.delay = options.delay
        self.metrics_interval = options.metrics_interval if options.metrics else None
        self._monotonic = monotonic
        self._resource = otlp_encoding.resource_fields(resource)
        self._metrics = Encoder(options.temporality)
        agent = f"insitu-otlp-python/{resource.attributes.get('telemetry.sdk.version', 0)}"
        self._routes: dict[Signal, _Route] = {
            signal: _Route(target, _transport(target, agent, monotonic, wait)) for signal, target in options.targets()
        }

    def encode(self, records: Sequence[Record]) -> Iterable[Part]:
        """Return the parts of some records: one for each signal and scope, more where they are large."""
        batch = _Batch()
        for record in records:
            if isinstance(record, LocalTrace):
                if record.sampled and "traces" in self._routes:
                    batch.add_trace(record)
            elif "logs" in self._routes:
                batch.add_log(record)
        return batch.parts(self.batch_items)

    def encode_metrics(self, families: Iterable[Family]) -> Iterable[Part]:
        """Return the parts of one collection: one for each scope, more where they are large."""
        self._metrics.begin()
        groups: dict[str, tuple[Scope, list[Metric]]] = {}  # by text: the attributes of a scope may have no hash
        lost = 0
        for family in families:
            metric = guard.call("otlp.metric", self._metrics.metric, family) or Metric(0, len(family.points), b"")
            lost += metric.lost
            if metric.points:
                groups.setdefault(repr(family.scope), (family.scope, []))[1].append(metric)
        for scope, metrics in groups.values():
            yield from _metric_parts(scope, metrics)
        if lost:
            yield Part("metrics", lost, 0, None)

    def send(self, signal: Signal, parts: Sequence[Part], timeout: float) -> Delivery:
        """Post the parts, in as many requests as their size asks for, within `timeout` seconds for all of them."""
        ends = self._monotonic() + timeout
        lost = sum(part.items for part in parts if part.data is None)
        deliveries = [Delivery(0, lost, "error" if lost else "")]
        deliveries += [self._post(signal, batch, ends) for batch in _requests(parts)]
        reasons = [each.reason for each in deliveries if each.dropped] or [""]
        sent, dropped = sum(each.sent for each in deliveries), sum(each.dropped for each in deliveries)
        return Delivery(sent, dropped, reasons[-1], sum(each.kept for each in deliveries))

    def close(self) -> None:
        """Close connections, and forget what differences were counted from (a forked child counts from zero)."""
        self._metrics.forget()
        for route in self._routes.values():
            route.transport.close()

    def resend(self, timeout: float) -> tuple[Signal, Delivery] | None:
        """Send one request that is left from before; None where there is none, or nobody takes it now."""
        if self._spool is None:
            return None
        with self._spool.oldest() as left:
            if left is None or left.signal not in self._routes:
                return None
            delivery = Delivery(0, left.items, "expired")
            if left.body:
                delivery = self._request(left.signal, left.items, left.body, self._monotonic() + timeout)
            left.done = delivery.reason not in _TO_KEEP
            return (left.signal, delivery) if left.done else None

    def _post(self, signal: Signal, parts: Sequence[Part], ends: float) -> Delivery:
        items = sum(part.items for part in parts)
        body = otlp_encoding.request(self._resource, [part.data for part in parts])
        delivery = self._request(signal, items, body, ends)
        # Metrics are totals: the next ones say what these would have said.
        spool = self._spool if delivery.reason in _TO_KEEP and signal != "metrics" else None
        return Delivery(0, kept=items) if spool is not None and spool.keep(signal, items, body) else delivery

    def _request(self, signal: Signal, items: int, body: bytes, ends: float) -> Delivery:
        route = self._routes[signal]
        left = min(ends - self._monotonic(), route.target.timeout)
        if left <= 0:
            return Delivery(0, items, "unreachable")
        reply = route.transport.post(route.target.url, body, content_type=CONTENT_TYPE, deadline=left)
        if reply.outcome == "ok":
            return _accepted(route.target, reply, items)
        _warn(route.target, f"took none of {items} items ({reply.detail})", _quote(reply.body, _STATUS_MESSAGE))
        return Delivery(0, items, reply.outcome)


class _Route(NamedTuple):
    target: Target
    transport: Transport


def _transport(target: Target, agent: str, monotonic: Callable[[], float], wait: Callable[[float], bool]) -> Transport:
    return Transport(
        user_agent=agent,
        wait=wait,
        timeout=target.timeout,
        headers=target.headers,
        gzip=target.gzip,
        certificate=target.certificate,
        client_certificate=target.client_certificate,
        client_key=target.client_key,
        monotonic=monotonic,
    )


class _Batch:
    """What a slice of records was encoded to, by signal and scope, and how much of it could not be."""

    def __init__(self) -> None:
        self._groups: list[tuple[Signal, Scope, list[bytes]]] = []
        self._by_scope: dict[
            int, list[bytes]
        ] = {}  # by identity: a scope's own hash would cost as much as an attribute
        self._by_logger: dict[str, list[bytes]] = {}
        self._lost: dict[Signal, int] = {}

    def add_trace(self, trace: LocalTrace) -> None:
        """Encode a trace's spans. One that cannot be encoded is lost alone."""
        lengths = [len(items) for _, _, items in self._groups]
        if not guard.call("otlp.trace", self._add_spans, trace, default=False):
            lengths += [0] * (len(self._groups) - len(lengths))
            for (_, _, items), length in zip(self._groups, lengths, strict=True):
                del items[length:]
            for record in trace.spans:
                if not guard.call("otlp.span", self._add_span, record, default=False):
                    self._lose("traces")

    def _add_spans(self, trace: LocalTrace) -> bool:
        head = otlp_encoding.trace_fields(trace)
        scope = None
        for record in trace.spans:
            if record.scope is not scope:  # most traces have one or two, in a row
                scope = record.scope
                append = self._of_scope(scope).append
            append(otlp_encoding.span(record, head))
        return True

    def _add_span(self, record: SpanRecord) -> bool:
        encoded = otlp_encoding.span(record, otlp_encoding.trace_fields(record.trace))
        self._of_scope(record.scope).append(encoded)
        return True

    def _of_scope(self, scope: Scope) -> list[bytes]:
        items = self._by_scope.get(id(scope))
        if items is None:
            items = self._by_scope[id(scope)] = self._open("traces", scope)
        return items

    def add_log(self, record: LogRecord | ErrorRecord) -> None:
        """Encode a log record, whose scope is its logger, or an error."""
        if isinstance(record, LogRecord):
            logger, encoded = record.logger, guard.call("otlp.log", otlp_encoding.log, record)
        else:
            logger, encoded = _ERRORS_LOGGER, guard.call("otlp.error", otlp_encoding.error_log, record)
        if encoded is None:
            self._lose("logs")
            return
        items = self._by_logger.get(logger)
        if items is None:
            items = self._by_logger[logger] = self._open("logs", Scope(logger))
        items.append(encoded)

    def _open(self, signal: Signal, scope: Scope) -> list[bytes]:
        items: list[bytes] = []
        self._groups.append((signal, scope, items))
        return items

    def _lose(self, signal: Signal) -> None:
        self._lost[signal] = self._lost.get(signal, 0) + 1

    def parts(self, most: int) -> Iterator[Part]:
        """Yield parts of at most so many items."""
        for signal, scope, items in self._groups:
            if items:
                yield from _parts(signal, scope, items, most)
        for signal, lost in self._lost.items():
            yield Part(signal, lost, 0, None)


def _parts(signal: Signal, scope: Scope, items: list[bytes], most: int) -> Iterator[Part]:
    weight = sum(map(len, items))
    if len(items) > most or (weight > PART_BYTES and len(items) > 1):
        for half in _halves(items):
            yield from _parts(signal, scope, half, most)
    else:
        yield Part(signal, len(items), weight + _PART_OVERHEAD, otlp_encoding.scoped(scope, items))


def _metric_parts(scope: Scope, metrics: list[Metric]) -> Iterator[Part]:
    weight = sum(len(metric.data) for metric in metrics)
    if weight > PART_BYTES and len(metrics) > 1:
        for half in _halves(metrics):
            yield from _metric_parts(scope, half)
    else:
        data = otlp_encoding.scoped(scope, [metric.data for metric in metrics])
        yield Part("metrics", sum(metric.points for metric in metrics), weight + _PART_OVERHEAD, data)


def _halves(items: list[Any]) -> tuple[list[Any], list[Any]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]


def _requests(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Yield the parts that have data, in groups that fit into one request."""
    group: list[Part] = []
    size = 0
    for part in parts:
        if part.data is None:
            continue
        if group and size + part.weight > REQUEST_BYTES:
            yield group
            group, size = [], 0
        group.append(part)
        size += part.weight
    if group:
        yield group


def _accepted(target: Target, reply: Reply, items: int) -> Delivery:
    """Read an answer of success, which may name items that were not taken after all."""
    partial = dict(fields(reply.body)).get(_PARTIAL_SUCCESS)
    if not isinstance(partial, bytes) or not partial:
        return Delivery(items)
    rejected = dict(fields(partial)).get(_REJECTED)
    dropped = min(rejected, items) if isinstance(rejected, int) and rejected <= INT64_MAX else 0
    _warn(target, f"refused {dropped} of {items} items", _quote(partial, _ERROR_MESSAGE))
    return Delivery(items - dropped, dropped, "partial" if dropped else "")


def _quote(data: bytes, field: int) -> str:
    """Return the text in a field of an answer, fit for one line of a log."""
    value = dict(fields(data)).get(field)
    said = value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
    return "".join(character if character.isprintable() else " " for character in said[:_LONGEST_QUOTE])


def _warn(target: Target, what: str, said: str) -> None:
    where = urlsplit(target.url)
    address = f"{where.hostname}:{where.port}{where.path}"  # without the password that an address may carry
    guard.warn(f"otlp {address}", "insitu: the OTLP receiver %s %s: %s", address, what, said or "no reason given")
