"""The `/metrics` page: our metrics as Prometheus text or OpenMetrics, then what the user keeps in prometheus_client.

Names and labels follow OpenTelemetry's "Prometheus and OpenMetrics Compatibility" specification, with three decisions
of our own:

- A gauge such as `process.thread.count` in `{thread}` becomes `process_threads`: the suffix `_count` belongs to
  histograms, and `promtool check metrics` refuses it elsewhere. Only names whose unit says what is counted are changed;
  others stand as declared.
- The scope that brought a metric first has bare series; only further scopes with the same metric get `otel_scope_name`
  and `otel_scope_version`. A label on every series would swell the page for nothing, and one that appears as soon as
  there is a second scope would end the first one's series in mid-life.
- `le` is written alike in both formats (`1.0`), so that a scraper that changes its format continues its series.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from insitu.core import guard
from insitu.core.records import Exemplar, Family, MetricKind, Point, Resource, Scope
from insitu.exporters.prometheus_registry import STANDARD, collectors, of_application

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector, CollectorRegistry


class Format(Enum):
    """What a scraper may be given; the value is the content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def content_type(form: Format) -> str:
    """Return the Content-Type header of a page in this format."""
    return form.value


def negotiate(accept: str) -> Format:
    """Return the format for an Accept header: OpenMetrics where it is named and no less welcome than text; else text.

    A wildcard is a browser or curl, whose reader is better served by text. Malformed entries are passed over.
    """
    best = {Format.TEXT: 0.0, Format.OPENMETRICS: 0.0}
    for entry in accept.lower().split(","):
        form, quality = _offer(entry)
        if form is not None:
            best[form] = max(best[form], quality)
    return (
        Format.OPENMETRICS
        if best[Format.OPENMETRICS] > 0 and best[Format.OPENMETRICS] >= best[Format.TEXT]
        else Format.TEXT
    )


def _offer(entry: str) -> tuple[Format | None, float]:
    """Return what one entry of an Accept header offers, and its quality: 0 where that is malformed."""
    kind, *parameters = (part.strip() for part in entry.split(";"))
    given = dict(parameter.partition("=")[::2] for parameter in parameters)
    try:
        quality = float(given.get("q", "1"))
    except ValueError:
        quality = 0.0
    if not 0 <= quality <= 1:
        quality = 0.0
    if kind == "application/openmetrics-text" and given.get("version", "1.0.0").strip('"') == "1.0.0":
        return Format.OPENMETRICS, quality
    return (Format.TEXT if kind == "text/plain" else None), quality


def render(families: Iterable[Family], resource: Resource | None, form: Format) -> bytes:
    """Return the page of these families, and of the resource as `target_info`.

    A family that cannot be written costs only itself.
    """
    sheet = _Sheet(form)
    sheet.add(families, resource)
    return sheet.page()


class Page:
    """What `/metrics` answers.

    Args:
        collectors: returns all families of ours at the time of the call.
        resource: what the process says about itself.
        user_registry: whether prometheus_client's REGISTRY is on the page too, once the application has imported it.
        several: whether the families are those of several workers: then what the user keeps in that registry is among
            them, and the page is not that of one process.

    """

    __slots__ = ("collectors", "resource", "several", "user_registry")

    def __init__(
        self,
        collectors: Callable[[], Iterable[Family]],
        resource: Resource | None,
        user_registry: bool = True,
        several: Callable[[], bool] = bool,
    ) -> None:
        self.collectors = collectors
        self.resource = resource
        self.user_registry = user_registry
        self.several = several

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return the content type and the body for an Accept header."""
        form = negotiate(accept)
        sheet = _Sheet(form)
        families = guard.call("exporters.prometheus", self.collectors, default=())
        several = self.several()
        sheet.add(families, _of_all(self.resource) if several and self.resource is not None else self.resource)
        registry = of_application()
        if self.user_registry and not several and registry is not None:
            guard.call("exporters.prometheus.registry", sheet.add_registry, registry)
        return form.value, sheet.page()


def _of_all(resource: Resource) -> Resource:
    """Return what is true of every worker."""
    return Resource({key: value for key, value in resource.attributes.items() if key not in _OF_A_PROCESS})


_OF_A_PROCESS: Final = frozenset(("process.pid", "service.instance.id"))

# -- names

_BAD_NAME: Final = re.compile(r"[^a-zA-Z0-9:]+")
_BAD_LABEL: Final = re.compile(r"[^a-zA-Z0-9]+")
_ANNOTATION: Final = re.compile(r"\{[^}]*\}")
_UNITS: Final = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "kBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tebibytes",
    "bit": "bits",
    "m": "meters",
    "g": "grams",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "Hz": "hertz",
    "Cel": "celsius",
    "%": "percent",
    "1": "",
}
_PER: Final = {
    "d": "day",
    "h": "hour",
    "min": "minute",
    "s": "second",
    "ms": "millisecond",
    "wk": "week",
    "mo": "month",
    "a": "year",
    "m": "meter",
}
_SUFFIXES: Final = {
    "counter": ("", "_total", "_created"),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
    "summary": ("", "_sum", "_count", "_created"),
    "gaugehistogram": ("", "_bucket", "_gsum", "_gcount"),
    "info": ("", "_info"),
}
_TYPES: Final = {"counter": "counter", "updown": "gauge", "gauge": "gauge", "histogram": "histogram"}


class _Names(NamedTuple):
    """How a metric is called on the page.

    Attributes:
        family: the name above its samples in OpenMetrics, where a counter's lacks `_total`.
        sample: the name of its samples, without a histogram's suffixes.
        unit: in words, "" for none.

    """

    family: str
    sample: str
    unit: str


@lru_cache(4096)
def _names(name: str, unit: str, kind: MetricKind) -> _Names:
    stem = _initial(_BAD_NAME.sub("_", name).rstrip("_"))
    if kind == "counter":
        stem = stem.removesuffix("_total")
    words = "ratio" if unit == "1" and kind == "gauge" else _unit(unit)
    if words and stem != words and not stem.endswith(f"_{words}"):
        stem = f"{stem}_{words}"
    if kind in {"gauge", "updown"} and stem.endswith("_count") and re.fullmatch(r"\{\w+\}", unit):
        stem = _counted(stem.removesuffix("_count"), unit[1:-1])
    return _Names(stem, f"{stem}_total" if kind == "counter" else stem, words)


def _unit(unit: str) -> str:
    """Return a UCUM unit in Prometheus' words: `By/s` is `bytes_per_second`, `{request}` nothing at all."""
    above, slash, below = _ANNOTATION.sub("", unit).strip().partition("/")
    words = _UNITS.get(above, above)
    if slash and below:
        words = f"{words}_per_{_PER.get(below, below)}"
    return _BAD_LABEL.sub("_", words).strip("_")


def _counted(stem: str, thing: str) -> str:
    return f"{stem}s" if stem.endswith(thing) else f"{stem}_{thing}s"


@lru_cache(4096)
def _label_name(name: str) -> str:
    return _initial(_BAD_LABEL.sub("_", name))


def _initial(name: str) -> str:
    return f"_{name}" if not name or name[0].isdigit() else name


# -- values

_UNSAFE: Final = re.compile('[\\\\"\n\ud800-\udfff]')
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
_WORDS: Final = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
_EXACT: Final = 1 << 63
_LABEL_SETS: Final = 4096
_label_sets: dict[tuple[tuple[str, Any], ...], str] = {}


def _escape(text: str) -> str:
    return _UNSAFE.sub(lambda match: _ESCAPES.get(match[0], "\ufffd"), text)


def _help(text: str, form: Format) -> str:
    escaped = _escape(text)
    return escaped if form is Format.OPENMETRICS else escaped.replace('\\"', '"')


def _number(value: Any) -> str:
    """Return a sample's value; an integer beyond all floats is infinite: out of range costs the whole scrape."""
    if type(value) is int and -_EXACT < value < _EXACT:
        return str(value)
    if type(value) is not float:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf if value > 0 else -math.inf
    text = repr(value)
    return _WORDS.get(text, text)


@lru_cache(1024)
def _bound(value: float) -> str:
    """Return a bucket's bound as Go writes it (%g, shortest): `0.005`, `1.0`, `1e+06`."""
    text = _number(float(value))
    whole, dot, fraction = text.lstrip("-").partition(".")
    if not dot or "e" in text or len(whole) <= 6:  # noqa: PLR2004 where %g changes to exponents
        return text
    digits = (whole + fraction).rstrip("0")
    mantissa = digits[0] + ("." + digits[1:] if digits[1:] else "")
    return f"{'-' if value < 0 else ''}{mantissa}e+{len(whole) - 1:02d}"


def _text(value: Any) -> str:
    """Return an attribute's value as OpenTelemetry writes it where only text is possible."""
    if type(value) is str:
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bool | int | float | tuple | list | dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_text)
    return "" if value is None else guard.render(value)


def _labels(labels: Mapping[str, Any]) -> str:
    """Return the text between a sample's braces.

    It is kept for the next scrape where all values are texts: 1 and True would be the same key.
    """
    key = tuple(labels.items())
    try:
        text = _label_sets.get(key)
    except TypeError:  # a list
        return _compose(key)
    if text is None:
        text = _compose(key)
        if all(type(value) is str for _, value in key):
            if len(_label_sets) >= _LABEL_SETS:
                _label_sets.clear()
            _label_sets[key] = text
    return text


def _compose(items: Iterable[tuple[str, Any]]) -> str:
    """Join labels in the order of their names: equal sets, equal texts. As in Prometheus, "" is no label."""
    values: dict[str, str] = {}
    for key, value in sorted(items):
        if text := _escape(_text(value)):
            name = _label_name(key)
            values[name] = f"{values[name]};{text}" if name in values else text
    return ",".join([f'{name}="{text}"' for name, text in values.items()])


# -- the page


class _Part:
    """The series that one scope has in a metric, by the text of their labels."""

    __slots__ = ("bounds", "rows", "scope")

    def __init__(self, bounds: tuple[float, ...], scope: dict[str, str]) -> None:
        self.bounds = bounds
        self.scope = scope
        self.rows: dict[str, Point] = {}

    def add(self, points: Iterable[Point], kind: MetricKind) -> None:
        """Take points in; two whose labels are the same on the page become one, as a series may appear only once."""
        rows, more, bucketed = self.rows, self.scope, kind == "histogram"
        for point in points:
            labels = point.labels
            if more or (bucketed and "le" in labels):
                labels = {("exported_le" if bucketed and key == "le" else key): labels[key] for key in labels} | more
            text = _labels(labels)
            rows[text] = _folded(kind, rows[text], point) if text in rows else point


def _folded(kind: MetricKind, one: Point, other: Point) -> Point:
    if kind == "gauge":
        return other
    buckets = [a + b for a, b in zip(one.buckets, other.buckets, strict=True)]
    return Point(one.labels, one.value + other.value, buckets, one.exemplars or other.exemplars)


class _Metric:
    """Everything below one TYPE line."""

    __slots__ = ("help", "kind", "names", "parts")

    def __init__(self, names: _Names, family: Family) -> None:
        self.names = names
        self.kind = family.kind
        self.help = family.help
        self.parts: dict[tuple[str, str], _Part] = {}

    def add(self, family: Family) -> None:
        """Take in a family of this name and type."""
        scope = (family.scope.name, family.scope.version)
        bounds = tuple(family.bounds)
        part = self.parts.get(scope)
        if part is None:
            part = self.parts[scope] = _Part(bounds, _scope_labels(family.scope) if self.parts else {})
        elif part.bounds != bounds:
            _warn_clash(family.name, "has other buckets than a metric of the same name")
            return
        part.add(family.points, family.kind)


def _scope_labels(scope: Scope) -> dict[str, str]:
    return {"otel_scope_name": scope.name, "otel_scope_version": scope.version}


def _warn_clash(name: str, why: str) -> None:
    guard.warn(f"exporters.prometheus: {name}", "insitu: metric %r %s; it is left out of /metrics", name, why)


class _Sheet:
    """A page that is being written.

    Attributes:
        taken: sample names on the page, so that no family claims another's (`x` as a histogram owns `x_count`).

    """

    __slots__ = ("form", "lines", "metrics", "taken")

    def __init__(self, form: Format) -> None:
        self.form = form
        self.lines: list[str] = []
        self.metrics: dict[str, _Metric] = {}
        self.taken: set[str] = set()

    def add(self, families: Iterable[Family], resource: Resource | None) -> None:
        """Write families of ours."""
        if resource is not None and resource.attributes:
            self._target(resource)
        gathered: list[Family] = []
        guard.call("exporters.prometheus", gathered.extend, families)  # what came before an error stays
        for family in gathered:
            guard.call("exporters.prometheus", self._gather, family)
        for metric in self.metrics.values():
            self.lines += guard.call("exporters.prometheus", self._write, metric, default=())

    def page(self) -> bytes:
        """Return what was written."""
        return "".join([*self.lines, "# EOF\n" if self.form is Format.OPENMETRICS else ""]).encode()

    def _target(self, resource: Resource) -> None:
        self._claim("target", "info")
        family, kind = ("target", "info") if self.form is Format.OPENMETRICS else ("target_info", "gauge")
        head = f"# HELP {family} What all series of this page have in common\n# TYPE {family} {kind}\n"
        self.lines.append(f"{head}target_info{{{_compose(resource.attributes.items())}}} 1\n")

    def _claim(self, family: str, kind: str) -> bool:
        names = {family + suffix for suffix in _SUFFIXES.get(kind, ("",))}
        if self.taken & names:
            return False
        self.taken |= names
        return True

    def _gather(self, family: Family) -> None:
        names = _names(family.name, family.unit, family.kind)
        metric = self.metrics.get(names.family)
        if metric is None and self._claim(names.family, _TYPES[family.kind]):
            metric = self.metrics[names.family] = _Metric(names, family)
        if metric is None or _TYPES[metric.kind] != _TYPES[family.kind]:
            _warn_clash(family.name, "clashes with another metric's name")
        else:
            metric.add(family)

    def _write(self, metric: _Metric) -> list[str]:
        lines: list[str] = []
        for part in metric.parts.values():
            lines += self._buckets(metric, part) if metric.kind == "histogram" else self._samples(metric, part)
        if lines:
            lines.insert(0, self._head(metric))
        return lines

    def _head(self, metric: _Metric) -> str:
        names, openmetrics = metric.names, self.form is Format.OPENMETRICS
        name = names.family if openmetrics else names.sample
        unit = f"# UNIT {name} {names.unit}\n" if openmetrics and names.unit and name.endswith(f"_{names.unit}") else ""
        text = _help(metric.help or name.replace("_", " "), self.form)
        return f"# HELP {name} {text}\n# TYPE {name} {_TYPES[metric.kind]}\n{unit}"

    def _samples(self, metric: _Metric, part: _Part) -> list[str]:
        rows = part.rows.items()
        if metric.kind == "counter" and self.form is Format.OPENMETRICS:
            rows = {
                text: point for text, point in rows if point.value >= 0
            }.items()  # there it is never NaN or negative
        name, number = metric.names.sample, _number
        start = f"{name}{{"
        return [
            f"{start}{text}}} {number(point.value)}\n" if text else f"{name} {number(point.value)}\n"
            for text, point in rows
        ]

    def _buckets(self, metric: _Metric, part: _Part) -> list[str]:
        name, lines = metric.names.sample, []
        ends = [f'le="{_bound(bound)}"}} ' for bound in (*part.bounds, math.inf)]
        summable = (
            not part.bounds or part.bounds[0] >= 0
        )  # OpenMetrics has no sum that can fall, and no count without it
        for text, point in part.rows.items():
            head = f"{name}_bucket{{{text}," if text else f"{name}_bucket{{"
            counts = list(accumulate(point.buckets))
            tails = self._tails(point.exemplars, len(counts))
            lines += [f"{head}{end}{count}{tail}" for end, count, tail in zip(ends, counts, tails, strict=True)]
            if self.form is Format.TEXT or (summable and point.value >= 0):
                braces = f"{{{text}}}" if text else ""
                lines.append(f"{name}_sum{braces} {_number(point.value)}\n{name}_count{braces} {counts[-1]}\n")
        return lines

    def _tails(self, exemplars: Sequence[Exemplar | None], count: int) -> Sequence[str]:
        if self.form is Format.TEXT or not exemplars:
            return ["\n"] * count
        return [_exemplar(each) if each else "\n" for each in exemplars]

    def add_registry(self, registry: CollectorRegistry) -> None:
        """Write what the user keeps in prometheus_client; a collector that raises costs only itself."""
        for collector in collectors(registry):
            self.lines += guard.call("exporters.prometheus.registry", self._user_lines, collector, default=())

    def _user_lines(self, collector: Collector) -> list[str]:
        from prometheus_client import generate_latest
        from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

        standard = type(collector).__module__ in STANDARD
        metrics = [metric for metric in collector.collect() if self._admits(metric, silently=standard)]
        generate = generate_openmetrics if self.form is Format.OPENMETRICS else generate_latest
        return [generate(_Collected(metrics)).decode().removesuffix("# EOF\n")]

    def _admits(self, metric: Metric, silently: bool) -> bool:
        if self._claim(re.sub(r"[^a-zA-Z0-9_:]", "_", metric.name), metric.type):
            return True
        if not silently:
            _warn_clash(metric.name, "of prometheus_client's registry has the name of another one on the page")
        return False


def _exemplar(exemplar: Exemplar) -> str:
    value, timestamp, trace_id, span_id = exemplar
    if not trace_id:
        return "\n"
    seconds = f"{timestamp // 1_000_000_000}.{timestamp % 1_000_000_000:09d}"
    return f' # {{trace_id="{trace_id:032x}",span_id="{span_id:016x}"}} {_number(value)} {seconds}\n'


class _Collected:
    """A registry of what was collected already, in the one method that prometheus_client's writers ask for."""

    __slots__ = ("metrics",)

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self.metrics
