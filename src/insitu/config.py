"""Options: one frozen dataclass per room, and one table of where each comes from.

Argument > INSITU_* > OTEL_* > [tool.insitu] in pyproject.toml or insitu.toml > default. A bad value warns, names the
fix, and falls back to the next source.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from insitu.core import guard, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MISSING: Final = object()
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

    """

    sample: float = 1.0
    sampler: str = ""
    sampler_argument: str = ""
    propagators: tuple[str, ...] = ("tracecontext", "baggage")
    attributes: int = 128
    events: int = 128
    links: int = 128
    value_length: int = values.LIMIT
    exclude: tuple[str, ...] = ()
    header: str = ""


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
class WebOptions:
    """Who may read our own paths: this machine, and whoever sends `token`."""

    token: str = ""


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
        libraries: instrumentations to switch on; ("auto",) takes what is installed.
        signals: whether SIGTERM is handled, so that a plain script delivers before it ends.

    """

    disabled: bool = False
    libraries: tuple[str, ...] = ("auto",)
    signals: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that `insitu.init` can be told."""

    service: ServiceOptions = field(default_factory=ServiceOptions)
    tracing: TracingOptions = field(default_factory=TracingOptions)
    export: ExportOptions = field(default_factory=ExportOptions)
    web: WebOptions = field(default_factory=WebOptions)
    redact: RedactOptions = field(default_factory=RedactOptions)
    process: ProcessOptions = field(default_factory=ProcessOptions)


# --- reading values
# -----------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text")
    return value.strip()


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("", "0", "false", "no", "off"):
        return False
    raise ValueError("true or false")


def _share(value: Any) -> float:
    number = float(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError("a number from 0 to 1")
    return number


def _count(value: Any) -> int:
    number = int(value)
    if number < 0:
        raise ValueError("a whole number, 0 or more")
    return number


def _names(value: Any) -> tuple[str, ...]:
    listed = value.split(",") if isinstance(value, str) else list(value)
    return tuple(str(name).strip() for name in listed if str(name).strip())


def _pairs(value: Any) -> dict[str, str]:
    if not isinstance(value, str):
        return {str(key): str(item) for key, item in dict(value).items()}
    from urllib.parse import unquote

    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if not all(separator for _, separator, _ in pairs):
        raise ValueError("key=value pairs with commas between them")
    return {key.strip(): unquote(item.strip()) for key, _, item in pairs}


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        name: the argument of `init`; INSITU_<NAME> and the key in a file follow from it.
        room, option: the dataclass and the field that it fills.
        read: makes the value; raises ValueError or TypeError with what would be right.
        otel: standard variables that serve too.

    """

    name: str
    room: str
    option: str
    read: Callable[[Any], Any]
    otel: tuple[str, ...] = ()


SETTINGS: Final = (
    Setting("service", "service", "name", _text, ("OTEL_SERVICE_NAME",)),
    Setting("version", "service", "version", _text),
    Setting("environment", "service", "environment", _text),
    Setting("attributes", "service", "attributes", _pairs, ("OTEL_RESOURCE_ATTRIBUTES",)),
    Setting("sample", "tracing", "sample", _share),
    Setting("sampler", "tracing", "sampler", _text, ("OTEL_TRACES_SAMPLER",)),
    Setting("sampler_argument", "tracing", "sampler_argument", str, ("OTEL_TRACES_SAMPLER_ARG",)),
    Setting("propagators", "tracing", "propagators", _names, ("OTEL_PROPAGATORS",)),
    Setting(
        "span_attributes",
        "tracing",
        "attributes",
        _count,
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
    ),
    Setting("span_events", "tracing", "events", _count, ("OTEL_SPAN_EVENT_COUNT_LIMIT",)),
    Setting("span_links", "tracing", "links", _count, ("OTEL_SPAN_LINK_COUNT_LIMIT",)),
    Setting(
        "value_length",
        "tracing",
        "value_length",
        _count,
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    ),
    Setting("exclude", "tracing", "exclude", _names),
    Setting("trace_header", "tracing", "header", _text),
    Setting("exporters", "export", "exporters", _names),
    Setting("log_output", "export", "log_output", _text),
    Setting("token", "web", "token", _text),
    Setting("redact", "redact", "on", _flag),
    Setting("redact_keys", "redact", "keys", _names),
    Setting("redact_allow", "redact", "allow", _names),
    Setting("redact_patterns", "redact", "patterns", _names),
    Setting("redact_emails", "redact", "emails", _flag),
    Setting("libraries", "process", "libraries", _names),
    Setting("signals", "process", "signals", _flag),
)
"""Every option, and where it comes from."""

FILES: Final = ("insitu.toml", "pyproject.toml")


def read(arguments: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> Options:
    """Return the options for `init(**arguments)`; never raises.

    Args:
        arguments: by the names of SETTINGS; None stands for "not given". Unknown names warn.
        environ: the environment.
        folder: where insitu.toml or pyproject.toml is looked for.

    """
    in_file = _file(folder)
    rooms: dict[str, dict[str, Any]] = {}
    for setting in SETTINGS:
        for source, value in _sources(setting, arguments, environ, in_file):
            made = _made(setting, source, value)
            if made is not MISSING:
                rooms.setdefault(setting.room, {})[setting.option] = made
                break
    _warn_of_unknown(arguments, in_file)
    disabled = any(_is_true(environ.get(name, "")) for name in ("INSITU_DISABLED", "OTEL_SDK_DISABLED"))
    rooms.setdefault("process", {})["disabled"] = disabled
    options = Options(**{part.name: _ROOMS[part.name](**rooms.get(part.name, {})) for part in fields(Options)})
    return _named_by_attributes(options)


_ROOMS: Final[dict[str, type[Any]]] = {
    "service": ServiceOptions,
    "tracing": TracingOptions,
    "export": ExportOptions,
    "web": WebOptions,
    "redact": RedactOptions,
    "process": ProcessOptions,
}


def _sources(
    setting: Setting, arguments: Mapping[str, Any], environ: Mapping[str, str], in_file: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    if arguments.get(setting.name) is not None:
        yield f"init({setting.name}=...)", arguments[setting.name]
    for variable in (f"INSITU_{setting.name.upper()}", *setting.otel):
        if environ.get(variable):
            yield variable, environ[variable]
    if setting.name in in_file:
        yield f"{setting.name} in the configuration file", in_file[setting.name]


def _made(setting: Setting, source: str, value: Any) -> Any:
    try:
        return setting.read(value)
    except (ValueError, TypeError) as error:
        guard.warn(
            f"option {setting.name}",
            "insitu: %s=%s is not valid (%s); it is ignored",
            source,
            guard.render(value, 100),
            error,
        )
        return MISSING


def _file(folder: Path) -> Mapping[str, Any]:
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            parsed = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            guard.warn("configuration", "insitu: %s cannot be read (%s); it is ignored", path, error)
            continue
        section = parsed if name == "insitu.toml" else parsed.get("tool", {}).get("insitu")
        if isinstance(section, dict):
            return section
    return {}


def _warn_of_unknown(arguments: Mapping[str, Any], in_file: Mapping[str, Any]) -> None:
    known = {setting.name for setting in SETTINGS}
    for name in [*arguments, *in_file]:
        if name not in known:
            guard.warn(f"option {name}", "insitu: there is no option %s; there are: %s", name, ", ".join(sorted(known)))


def _named_by_attributes(options: Options) -> Options:
    """Let `service.name`.

    `service.version` and `deployment.environment.name` in the resource attributes count where no option says
    otherwise.
    """
    from dataclasses import replace

    service, given = options.service, options.service.attributes
    named = replace(
        service,
        name=given.get("service.name", service.name) if service.name == UNNAMED else service.name,
        version=service.version or given.get("service.version", ""),
        environment=service.environment or given.get("deployment.environment.name", ""),
    )
    return replace(options, service=named)


def _is_true(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on")
