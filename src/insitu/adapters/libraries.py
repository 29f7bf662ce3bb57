"""Libraries that the application calls.

Our own light hooks, and the door for every `opentelemetry-instrumentation-*` package.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import wrapt

from insitu.adapters import (
    aiohttp_client,
    asyncpg,
    celery,
    dbapi,
    django_cache,
    django_orm,
    httpx,
    psycopg,
    psycopg_pool,
    redis,
    sqlalchemy,
    urllib3,
)
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GROUP: Final = "opentelemetry_instrumentor"
OWN_WORK: Final = frozenset(
    {"fastapi", "starlette", "asgi", "flask", "wsgi", "django", "httpx", "httpx2", "sqlalchemy", "logging", "celery"}
    | {"redis", "aiohttp-client", "requests", "urllib3"}  # requests sends through urllib3
    | {"asyncpg", "psycopg", "psycopg2", "pymysql", "sqlite3"}
)
"""Instrumentations whose work insitu does itself; where a hook does it, not even their name loads them."""
_BELOW: Final = {"requests": "urllib3"}
"""Libraries whose calls are seen where they go through."""

_LIBRARIES: Final = {"aiohttp-client": "aiohttp", "aiohttp-server": "aiohttp", "mysqlclient": "MySQLdb"}
"""What is called otherwise than its library. To load an instrumentation imports that: 120 ms for an unused aiohttp."""


class Found(NamedTuple):
    """What became of one library: for `doctor`."""

    name: str
    state: str
    by: str


found: dict[str, Found] = {}

HOOKS: Final[dict[str, Callable[[Any], None]]] = {
    "aiohttp-client": aiohttp_client.hook,
    "aiosqlite": dbapi.hook_aiosqlite,
    "asyncpg": asyncpg.hook,
    "celery": celery.hook,
    "django": django_orm.hook,
    "django-cache": django_cache.hook,
    "httpx": httpx.hook,
    "httpx2": functools.partial(httpx.hook, library=httpx.HTTPX2),
    "psycopg": psycopg.hook,
    "psycopg_pool": psycopg_pool.hook,
    "psycopg2": dbapi.hook_psycopg2,
    "pymysql": dbapi.hook_pymysql,
    "redis": redis.hook,
    "sqlalchemy": sqlalchemy.hook,
    "sqlite3": dbapi.hook_sqlite3,
    "urllib3": urllib3.hook,
}
"""Our own hooks, installed when their library is imported."""
_MODULES: Final = {
    "aiohttp-client": "aiohttp.client",
    "celery": "celery.app.base",
    "django": "django.db.backends.signals",
    "django-cache": "django.core.cache",
}
"""What is waited for where it is not the library itself."""


def instrument(names: Iterable[str]) -> None:
    """Switch instrumentations on: `auto` for our own hooks and everything installed, else by name."""
    wanted = {_BELOW.get(name, name) for name in names}
    for name, hook in HOOKS.items():
        if "auto" in wanted or name in wanted:
            found.setdefault(name, Found(name, "waiting for its import", "insitu"))
            wrapt.register_post_import_hook(_once(name, hook), module_of(name))
    offered = list(metadata.entry_points(group=GROUP))
    for entry in offered:
        if entry.name in HOOKS:
            continue
        if entry.name in wanted:
            guard.call(f"instrument {entry.name}", _load, entry)
        elif "auto" in wanted and _is_theirs(entry):
            _load_with_its_library(entry)
    for name in wanted - {"auto", *HOOKS, *(entry.name for entry in offered)}:
        found[name] = Found(name, "not installed", "")
        guard.warn(f"library {name}", "insitu: no instrumentation of %s is installed", name)


def _is_theirs(entry: metadata.EntryPoint) -> bool:
    """Whether `auto` leaves the work to this instrumentation."""
    # OpenTelemetry's module for httpx offers httpx2 as well, and importing it imports httpx.
    shared = entry.module.rpartition(".")[2] in OWN_WORK
    return entry.name not in OWN_WORK and (not shared or installed(entry.name))


def _once(name: str, hook: Callable[[Any], None]) -> Callable[[Any], None]:
    def install(module: Any) -> None:
        if not getattr(module, "__insitu__", False):
            module.__insitu__ = True
            guard.call(f"instrument {name}", hook, module)
            found[name] = Found(name, "instrumented", "insitu")

    return install


def _load_with_its_library(entry: metadata.EntryPoint) -> None:
    """Load an instrumentation when its library is imported: loading imports the library, which may never be used."""

    def load(_: Any = None) -> None:
        guard.call(f"instrument {entry.name}", _load, entry)

    library = _LIBRARIES.get(entry.name, entry.name)
    if library in sys.modules or not installed(entry.name):
        load()  # the name of an entry point is that of its library for most, and for the rest there is no telling
    else:
        found.setdefault(entry.name, Found(entry.name, "waiting for its import", entry.value))
        wrapt.register_post_import_hook(load, library)


def _load(entry: metadata.EntryPoint) -> None:
    found[entry.name] = Found(entry.name, "not instrumented: it failed, and the log says why", entry.value)
    instrumentor = entry.load()()
    if instrumentor.is_instrumented_by_opentelemetry:
        found[entry.name] = Found(entry.name, "instrumented", "the application")
        return
    conflict = instrumentor._check_dependency_conflicts()
    if conflict is None:
        instrumentor.instrument(skip_dep_check=True)
    state = "instrumented" if conflict is None else f"not instrumented: {conflict}"
    found[entry.name] = Found(entry.name, state, entry.value)


def module_of(name: str) -> str:
    """Return the module whose import a hook of ours waits for."""
    return _MODULES.get(name, name)


def installed(name: str) -> bool:
    """Whether a library, or that of an instrumentation, can be imported."""
    name = _LIBRARIES.get(name, name)
    return name in sys.modules or importlib.util.find_spec(name) is not None
