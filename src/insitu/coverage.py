"""Which of the libraries that this environment has insitu sees at work, and what would show it the others."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from insitu.adapters import libraries
from insitu.core import guard
from insitu.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OTHERS: Final = {
    "aio-pika": "aio_pika",
    "aiokafka": "aiokafka",
    "aiopg": "aiopg",
    "botocore": "botocore",
    "cassandra": "cassandra",
    "confluent-kafka": "confluent_kafka",
    "elasticsearch": "elasticsearch",
    "grpc": "grpc",
    "kafka-python": "kafka",
    "mysql": "mysql",
    "mysqlclient": "MySQLdb",
    "pika": "pika",
    "pymemcache": "pymemcache",
    "pymongo": "pymongo",
    "pymssql": "pymssql",
    "tortoiseorm": "tortoise",
}
"""Libraries that call other services and that insitu leaves to OpenTelemetry's packages: by the package's name."""


class Library(NamedTuple):
    """One library of this environment.

    Attributes:
        name: as instrumentations call it.
        covered: whether its calls are seen, now or as soon as it is imported.
        by: who sees them: insitu, an instrumentation package, the application; "" for nobody.

    """

    name: str
    covered: bool
    by: str


def covered(found: Mapping[str, libraries.Found]) -> list[Library]:
    """Return every library of this environment that calls others, by name.

    Args:
        found: what became of each at the start (`adapters.libraries.found`).

    """
    known = {**{name: libraries.module_of(name) for name in libraries.HOOKS}, **OTHERS}
    return [_library(name, found.get(name)) for name, module in sorted(known.items()) if _is_here(module)]


def _library(name: str, found: libraries.Found | None) -> Library:
    seen = found is not None and found.state in ("instrumented", "waiting for its import")
    return Library(name, seen, found.by if found is not None and seen else "")


def share(listed: list[Library]) -> float:
    """Return the share that is covered, 0 to 1; all of nothing is 1."""
    return sum(library.covered for library in listed) / len(listed) if listed else 1.0


def _is_here(module: str) -> bool:
    return importlib.util.find_spec(module.partition(".")[0]) is not None


# --- findings
# --------------------------------------------------------------------------------------------------------------------


def of_libraries() -> Iterator[Finding]:
    """What is instrumented, and by whom; what is not here at all is passed over."""
    yield from _hooked()
    yield from _packages()
    yield from _covered()


def _hooked() -> Iterator[Finding]:
    for name, found in sorted(libraries.found.items()):
        if (found.by == "insitu" and not libraries.installed(name)) or _is_absent(found.state):
            continue
        if found.state == "instrumented":
            yield Finding("libraries", "ok", f"{name}: by {found.by}, whether imported before insitu or after")
        elif found.by == "insitu":
            yield Finding("libraries", "ok", f"{name}: by insitu as soon as it is imported")
        else:
            yield Finding("libraries", "note", f"{name}: {found.state}", "install what it asks for, or do without")


def _packages() -> Iterator[Finding]:
    """Say what becomes of the instrumentation packages that insitu has not switched on."""
    unused = set()
    for entry in sorted(metadata.entry_points(group=libraries.GROUP), key=lambda entry: entry.name):
        if entry.name in libraries.found and libraries.found[entry.name].by != "insitu":
            continue
        package = entry.dist.name if entry.dist is not None else entry.value
        made = guard.call(f"instrumentor {entry.name}", _load, entry)
        if made is None:
            yield Finding("libraries", "note", f"{package} cannot be loaded", f"pip install -U {package}, or remove it")
            continue
        conflict = guard.call("doctor.conflict", made._check_dependency_conflicts)
        if conflict is None and entry.name in libraries.OWN_WORK and not made.is_instrumented_by_opentelemetry:
            unused.add(entry.name)
        else:
            yield from _package(entry.name, package, conflict, switched_on=made.is_instrumented_by_opentelemetry)
    if unused:
        text = "installed and not used, because insitu does that work itself"
        yield Finding("libraries", "ok", f"opentelemetry-instrumentation-* of {', '.join(sorted(unused))}: {text}")


def _package(name: str, package: str, conflict: object, *, switched_on: bool) -> Iterator[Finding]:
    if switched_on:
        text = f"{name}: by {package}, switched on by the application; insitu's own hook stands back"
        yield Finding("libraries", "ok", text)
    elif conflict is None:
        fix = f'insitu.init(libraries=("auto",)), or name {name} there'
        yield Finding("libraries", "note", f"{name}: {package} is installed and not switched on", fix)
    elif not _is_absent(str(conflict)):
        own = "; insitu does its work itself" if name in libraries.OWN_WORK else ""
        yield Finding("libraries", "note", f"{package} refuses: {conflict}{own}")


def _covered() -> Iterator[Finding]:
    listed = covered(libraries.found)
    for library in listed:
        if not library.covered:
            package = f"pip install opentelemetry-instrumentation-{library.name}, and insitu loads it"
            fix = 'insitu.init(libraries=("auto",))' if library.name in libraries.HOOKS else package
            yield Finding("libraries", "note", f"{library.name}: nobody sees its calls", fix)
    seen, whole = sum(library.covered for library in listed), share(listed)
    text = f"coverage: {whole:.0%}, {seen} of {len(listed)} libraries of this environment that call others"
    yield Finding("libraries", "ok" if whole == 1 else "note", text)


def _is_absent(conflict: str) -> bool:
    """Whether an instrumentation package only says that its library is not installed, as older and newer ones do."""
    return "no installed version was found" in conflict or 'but found: "None"' in conflict


def _load(entry: metadata.EntryPoint) -> Any:
    return entry.load()()
