"""Options: one frozen dataclass per room, and one table of where each comes from.

Argument > INSITU_* > OTEL_* > [tool.insitu] in pyproject.toml or insitu.toml > default. A bad value warns, names the
fix, and falls back to the next source.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import unquote

from insitu.core import guard, values
from insitu.core.redact import compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

MISSING: Final = object()
W3C: Final = ("tracecontext", "baggage")
UNNAMED: Final = "unknown_service"
"""What OpenTelemetry calls a service that nobody named."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What this process is.

    Attributes:
        name, version, environment: as they stand on every signal.
        attributes: further resource attributes (OTEL_RESOURCE_ATTRIBUTES).

    """

    name: str = UNNAMED
    version: str = ""
    environment: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TracingOptions:
    """How traces are taken.

    Attributes:
        sample: share of traces that are recorded, 0..1; a function of the trace id.
        sampler, sampler_argument: OTEL_TRACES_SAMPLER and its argument; "" leaves it to `sample`.
        propagators: formats of context in and out.
        attributes, events, links: limits of a span.
        value_length: longest attribute value, in characters.
        exclude: paths or route templates that are out of every signal.
        header: response header that carries the trace id; "" for none.
        slow_statement: seconds from which a statement to a database is slow.

    """

    sample: float = 1.0
    sampler: str = ""
    sampler_argument: str = ""
    propagators: tuple[str, ...] = W3C
    attributes: int = 128
    events: int = 128
    links: int = 128
    value_length: int = values.LIMIT
    exclude: tuple[str, ...] = ()
    header: str = ""
    slow_statement: float = 0.1


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Where signals go.

    Attributes:
        exporters: names in the entry point group `insitu.exporters`; None chooses by the standard variables.
        log_output: `stdout`, `stderr` or a file's path for JSON lines; "" writes none.

    """

    exporters: tuple[str, ...] | None = None
    log_output: str = ""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What is kept beside the application.

    Attributes:
        folder: where; "" keeps nothing.
        bytes: of all files of the service together.
        retention: seconds that an entry is kept.

    """

    folder: str = ".insitu"
    bytes: int = 256 * 1024 * 1024
    retention: float = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class WebOptions:
    """Our own paths.

    Attributes:
        token: opens them to whoever sends it; without one, to this machine alone.
        page: where the page is; "" serves neither it nor what it asks.

    """

    token: str = ""
    page: str = "/monitoring"


@dataclass(frozen=True, slots=True)
class RedactOptions:
    """What is taken out of every signal.

    Attributes:
        on: False leaves everything as it is.
        keys, patterns: denied beside the built-in rules.
        allow: keys that are never redacted.
        emails: whether e-mail addresses count as secret.

    """

    on: bool = True
    keys: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    emails: bool = False


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How insitu lives in its process.

    Attributes:
        disabled: INSITU_DISABLED or OTEL_SDK_DISABLED: nothing is installed at all. Stands above every other source.
        budget: share of one core, or of the process's CPU time where that is more, that insitu may take; None only
            measures.
        libraries: instrumentations to switch on; ("auto",) takes what is installed.
        signals: whether SIGTERM is handled, so that a plain script delivers before it ends.

    """

    disabled: bool = False
    budget: float | None = None
    libraries: tuple[str, ...] = ("auto",)
    signals: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that `insitu.init` can be told."""

    service: ServiceOptions = field(default_factory=ServiceOptions)
    tracing: TracingOptions = field(default_factory=TracingOptions)
    export: ExportOptions = field(default_factory=ExportOptions)
    store: StoreOptions = field(default_factory=StoreOptions)
    web: WebOptions = field(default_factory=WebOptions)
    redact: RedactOptions = field(default_factory=RedactOptions)
    process: ProcessOptions = field(default_factory=ProcessOptions)


# --- reading values
# -----------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("give a text")
    return value.strip()


def _path(value: Any) -> str:
    if value is None or str(value).strip().lower() in ("", "none"):
        return ""
    path = f"/{_text(value).strip('/')}"
    if not re.fullmatch(r"(/[\w.~-]+)+", path):
        raise ValueError("give a path such as /monitoring, or none")
    return path


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("", "0", "false", "no", "off"):
        return False
    raise ValueError("give true or false")


def _share(value: Any) -> float:
    number = _number(float, value, "give a number from 0 to 1")
    if not 0.0 <= number <= 1.0:
        raise ValueError("give a number from 0 to 1")
    return number


def _budget(value: Any) -> float | None:
    text = str(value).strip().lower()
    if text in ("", "none"):
        return None
    right = "give a share of a core: 1%, 0.5%, or none"
    share = _number(float, text.removesuffix("%"), right) / (100.0 if text.endswith("%") else 1.0)
    if not 0.0 < share <= 1.0:
        raise ValueError(right)
    return share


def _count(value: Any) -> int:
    number = _number(int, value, "give a whole number, 0 or more")
    if number < 0:
        raise ValueError("give a whole number, 0 or more")
    return number


def _number(kind: Callable[[Any], T], value: Any, right: str) -> T:
    try:
        return kind(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(right) from error


def _folder(value: Any) -> str:
    if value is None:
        return ""
    name = _text(str(value) if isinstance(value, Path) else value)
    return "" if name.lower() == "none" else name


def _bytes(value: Any) -> int:
    right = "give bytes, 1 MB or more: 256MB, 1GB"
    number = value if isinstance(value, int) else round(_measured(value, _BYTES, right))
    if number < _BYTES["mb"]:
        raise ValueError(right)
    return number


def _seconds(value: Any) -> float:
    right = "give a time, a minute or more: 30m, 12h, 7d"
    seconds = float(value) if isinstance(value, int | float) else _measured(value, _TIMES, right)
    if not _TIMES["m"] <= seconds < float("inf"):
        raise ValueError(right)
    return seconds


def _duration(value: Any) -> float:
    right = "give a time: 100ms, 0.5s"
    seconds = float(value) if isinstance(value, int | float) else _measured(value, _SHORT_TIMES, right) / 1_000
    if not 0.0 < seconds < float("inf"):
        raise ValueError(right)
    return seconds


_SHORT_TIMES: Final = {"ms": 1, "s": 1_000, "": 1_000}
_BYTES: Final = {"": 1, "b": 1, "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000}
_TIMES: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_MEASURE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-z]{0,2})")


def _measured(value: Any, units: Mapping[str, int], right: str) -> float:
    """Return a number with a unit behind it, in the smallest unit."""
    found = _MEASURE.fullmatch(str(value).strip().lower())
    if found is None or found[2] not in units:
        raise ValueError(right)
    return float(found[1]) * units[found[2]]


def _names(value: Any) -> tuple[str, ...]:
    return _listed(value, value.split(",") if isinstance(value, str) else ())


def _patterns(value: Any) -> tuple[str, ...]:
    """Take those that can be used: one bad pattern must not leave in the open what the others would hide."""
    given = _listed(value, _COMMA.split(value) if isinstance(value, str) else ())
    good = []
    for pattern in given:
        try:
            compiled(pattern)
            good.append(pattern)
        except ValueError as error:
            guard.warn(f"option {error}", "insitu: %s; this pattern is ignored", error)
    return tuple(good)


_COMMA: Final = re.compile(r",(?![^{\[(]*[}\])])")  # not the comma of `\d{1,5}`


def _listed(value: Any, parts: Iterable[str]) -> tuple[str, ...]:
    """Return names without blanks; the one name `none` stands for the empty list."""
    if not isinstance(value, str | list | tuple | set | frozenset):
        raise TypeError("give names with commas between them, or a list of names")
    names = tuple(str(name).strip() for name in (parts if isinstance(value, str) else value) if str(name).strip())
    return () if names == ("none",) else names


def _pairs(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): str(item) for key, item in value.items()}
    pairs = (
        [pair.partition("=") for pair in value.split(",") if pair.strip()] if isinstance(value, str) else [("",) * 3]
    )
    if not all(key.strip() and separator for key, separator, _ in pairs):
        raise ValueError("give key=value pairs with commas between them")
    return {key.strip(): unquote(item.strip()) for key, _, item in pairs}


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        name: the argument of `init`; INSITU_<NAME> and the key in a file follow from it.
        meaning: for people.
        room, option: the dataclass and the field that it fills.
        read: makes the value; raises ValueError or TypeError with what would be right.
        otel: standard variables that serve too.

    """

    name: str
    meaning: str
    room: str
    option: str
    read: Callable[[Any], Any]
    otel: tuple[str, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables, the strongest first."""
        return (f"INSITU_{self.name.upper()}", *self.otel)

    @property
    def default(self) -> Any:
        """The value where nobody says anything."""
        return getattr(_ROOMS[self.room](), self.option)


SETTINGS: Final = (
    Setting("service", "name of the application", "service", "name", _text, ("OTEL_SERVICE_NAME",)),
    Setting("version", "its version", "service", "version", _text),
    Setting("environment", "where it runs: production, staging", "service", "environment", _text),
    Setting(
        "attributes",
        "more about the process, as key=value pairs",
        "service",
        "attributes",
        _pairs,
        ("OTEL_RESOURCE_ATTRIBUTES",),
    ),
    Setting("sample", "share of traces that is recorded, 0 to 1; counts stay exact", "tracing", "sample", _share),
    Setting(
        "sampler",
        "an OpenTelemetry sampler by name; stronger than `sample`",
        "tracing",
        "sampler",
        _text,
        ("OTEL_TRACES_SAMPLER",),
    ),
    Setting("sampler_argument", "its argument", "tracing", "sampler_argument", str, ("OTEL_TRACES_SAMPLER_ARG",)),
    Setting(
        "propagators", "formats of trace context in and out", "tracing", "propagators", _names, ("OTEL_PROPAGATORS",)
    ),
    Setting(
        "span_attributes",
        "most attributes of a span",
        "tracing",
        "attributes",
        _count,
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
    ),
    Setting("span_events", "most events of a span", "tracing", "events", _count, ("OTEL_SPAN_EVENT_COUNT_LIMIT",)),
    Setting("span_links", "most links of a span", "tracing", "links", _count, ("OTEL_SPAN_LINK_COUNT_LIMIT",)),
    Setting(
        "value_length",
        "longest attribute value, in characters",
        "tracing",
        "value_length",
        _count,
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    ),
    Setting("exclude", "paths that are out of every signal; * stands for anything", "tracing", "exclude", _names),
    Setting("trace_header", "response header that carries the trace id", "tracing", "header", _text),
    Setting("slow_statement", "from when on a statement to a database is slow", "tracing", "slow_statement", _duration),
    Setting(
        "exporters",
        "where signals go beside /metrics: otlp, console, none; by default what its own variable switches on",
        "export",
        "exporters",
        _names,
    ),
    Setting("log_output", "JSON lines of log records: stdout, stderr or a file", "export", "log_output", _text),
    Setting(
        "store",
        "folder where what matters is kept; none keeps nothing",
        "store",
        "folder",
        _folder,
    ),
    Setting("store_bytes", "most that the store's files may take: 256MB", "store", "bytes", _bytes),
    Setting("retention", "how long the store keeps it: 7d, 12h, 30m", "store", "retention", _seconds),
    Setting("token", "lets others than this machine read /metrics and the page", "web", "token", _text),
    Setting("page", "path of the page; none serves neither it nor what it asks", "web", "page", _path),
    Setting("redact", "whether secrets are taken out", "redact", "on", _flag),
    Setting("redact_keys", "more keys whose values are secret", "redact", "keys", _names),
    Setting("redact_allow", "keys that are never redacted", "redact", "allow", _names),
    Setting("redact_patterns", "more regular expressions of secret values", "redact", "patterns", _patterns),
    Setting("redact_emails", "whether e-mail addresses are secret", "redact", "emails", _flag),
    Setting("budget", "CPU that insitu may take: 1% of a core; none only measures", "process", "budget", _budget),
    Setting("libraries", "libraries to instrument: auto, none, or names", "process", "libraries", _names),
    Setting("signals", "whether SIGTERM delivers before a plain script ends", "process", "signals", _flag),
)
"""Every option, and where it comes from."""

FILES: Final = ("insitu.toml", "pyproject.toml")
SWITCHES: Final = ("INSITU_DISABLED", "OTEL_SDK_DISABLED")
"""Variables that switch everything off, above every other source."""


class Value(NamedTuple):
    """What one option is, and who said so."""

    setting: Setting
    value: Any
    source: str


def values_of(arguments: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> list[Value]:
    """Return each option's value and its source, as `read` sees them."""
    in_file = guard.call("configuration", _file, folder, default={})
    found = [guard.call(f"option {each.name}", _value, each, arguments, environ, in_file) for each in SETTINGS]
    _warn_of_unknown(arguments, in_file)
    return [value or Value(each, each.default, "default") for value, each in zip(found, SETTINGS, strict=True)]


def read(arguments: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Options:
    """Return the options for `init(**arguments)`; never raises.

    Args:
        arguments: by the names of SETTINGS; None stands for "not given". Unknown names warn.
        environ: the environment.
        folder: where insitu.toml or pyproject.toml is looked for.

    """
    rooms: dict[str, dict[str, Any]] = {name: {} for name in _ROOMS}
    for setting, value, _ in values_of(arguments, environ, folder):
        rooms[setting.room][setting.option] = value
    rooms["process"]["disabled"] = disabled_by(environ) != ""
    return _named_by_attributes(Options(**{name: _ROOMS[name](**given) for name, given in rooms.items()}))


def disabled_by(environ: Mapping[str, str]) -> str:
    """Return the variable that switches everything off, "" when none does."""
    return next((name for name in SWITCHES if environ.get(name, "").strip().lower() in _YES), "")


_YES: Final = ("1", "true", "yes", "on")
_ROOMS: Final[dict[str, type[Any]]] = {
    "service": ServiceOptions,
    "tracing": TracingOptions,
    "export": ExportOptions,
    "store": StoreOptions,
    "web": WebOptions,
    "redact": RedactOptions,
    "process": ProcessOptions,
}


def _value(
    setting: Setting, arguments: Mapping[str, Any], environ: Mapping[str, str], in_file: Mapping[str, Any]
) -> Value | None:
    for source, given in _sources(setting, arguments, environ, in_file):
        try:
            return Value(setting, setting.read(given), source)
        except (ValueError, TypeError) as error:
            shown = "" if setting.name in _SECRET else f"={guard.render(given, 100)}"
            guard.warn(
                f"option {setting.name}",
                "insitu: %s%s is not valid: %s. Until then it is ignored",
                source,
                shown,
                error,
            )
    return None


_SECRET: Final = ("token", "attributes")
"""Options whose values are not repeated in a warning."""
_NONE_IS_A_CHOICE: Final = ("store", "page")
"""Options for which the argument None says "nothing"; for all others it says nothing."""


def _sources(
    setting: Setting, arguments: Mapping[str, Any], environ: Mapping[str, str], in_file: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    if arguments.get(setting.name) is not None or (setting.name in arguments and setting.name in _NONE_IS_A_CHOICE):
        yield f"init({setting.name}=...)", arguments[setting.name]
    for variable in setting.variables:
        if environ.get(variable):
            yield variable, environ[variable]
    if setting.name in in_file:
        yield f"{setting.name} in the configuration file", in_file[setting.name]


def _file(folder: Path) -> Mapping[str, Any]:
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            parsed = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            guard.warn("configuration", "insitu: %s cannot be read (%s); it is ignored", path, error)
            continue
        section = parsed if name == "insitu.toml" else _section(parsed)
        if isinstance(section, dict):
            return section
    return {}


def _section(pyproject: Mapping[str, Any]) -> Any:
    tool = pyproject.get("tool")
    return tool.get("insitu") if isinstance(tool, dict) else None


def _warn_of_unknown(arguments: Mapping[str, Any], in_file: Mapping[str, Any]) -> None:
    known = {setting.name for setting in SETTINGS}
    for name in [*arguments, *in_file]:
        if name not in known:
            guard.warn(f"option {name}", "insitu: there is no option %s; there are: %s", name, ", ".join(sorted(known)))


def _named_by_attributes(options: Options) -> Options:
    """Let `service.name`, `service.version` and `deployment.environment.name` count where no option says otherwise."""
    service, given = options.service, options.service.attributes
    named = replace(
        service,
        name=given.get("service.name", service.name) if service.name == UNNAMED else service.name,
        version=service.version or given.get("service.version", ""),
        environment=service.environment or given.get("deployment.environment.name", ""),
    )
    return replace(options, service=named)
