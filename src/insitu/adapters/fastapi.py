"""FastAPI and Starlette.

The route's template, also below mounts, and FastAPI's own telemetry switched off for the application.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from insitu.adapters import asgi
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from insitu.adapters.asgi_answers import Scope

_OFF: Final = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
_MOUNTS: Final = 512
_NOTHING: Final[dict[str, Any]] = {}


class Middleware(asgi.Middleware):
    """Knows Starlette's routing. `starlette` is the instrumented application."""

    starlette: Any
    _mounts: dict[str, Mount]

    def route(self, scope: Scope) -> str:
        """Return the template of the route that matched, with the templates of the mounts above it."""
        route = scope.get("route")
        # The route of an included router knows its own path only; FastAPI's context of the inclusion knows the whole.
        included = scope.get("fastapi", _NOTHING).get("effective_route_context")
        if included is not None and included.original_route is route:
            route = included
        below = scope.get("app_root_path")
        path: str | None = getattr(route, "path_format", None)
        if below is None and path is not None:
            return path
        if "endpoint" not in scope:
            return ""
        # Below a mount, root_path has grown by what the mount matched: values, where its template has parameters.
        root = scope.get("root_path", "")
        mount = self._mount(root[len(below) :] if below is not None else "")
        if path is None or (hasattr(route, "app") and not hasattr(route, "endpoint")):
            path = _plain(mount.routes, scope["endpoint"], scope["path"].removeprefix(root))
        return mount.template + ("/{path}" if path is None else path)

    def _mount(self, matched: str) -> Mount:
        found = self._mounts.get(matched)
        if found is None:
            nothing = Mount("", ())
            found = guard.call("fastapi.mount", below_mounts, self.starlette.routes, matched, default=None) or nothing
            if len(self._mounts) < _MOUNTS:
                self._mounts[matched] = found
        return found

    def owns(self, scope: Scope) -> bool | None:
        """Whether a route of the application is meant for this very path; a catch-all is not."""
        path = scope["path"]
        for route in leaves(self.starlette.routes):
            template = getattr(route, "path", None) or "/{"
            regex = getattr(route, "path_regex", None)
            # A mount answers what is below it, and redirects its own path there.
            if path == template or (regex is not None and not template.startswith("/{") and regex.match(path)):
                return True
        return False


class Mount(NamedTuple):
    """Where a request was routed to: the joined templates of the mounts above, and the routes there."""

    template: str
    routes: Any


def leaves(routes: Any) -> Iterator[Any]:
    """Yield the routes, those of included routers and of hosts as if they stood here."""
    for route in routes:
        included = getattr(route, "effective_route_contexts", None)
        if included is not None:
            yield from (context.starlette_route or context for context in included())
        elif hasattr(route, "host_regex"):
            yield from leaves(route.routes)
        else:
            yield route


def below_mounts(routes: Any, matched: str) -> Mount | None:
    """Return where the mounts lead that consumed `matched`, None when they cannot be told."""
    if not matched:
        return Mount("", routes)
    for mount in leaves(routes):
        path = getattr(mount, "path", "")
        if not path or hasattr(mount, "endpoint") or not hasattr(mount, "routes"):
            continue
        found = mount.path_regex.match(f"{matched}/")
        if found is not None:
            inner = below_mounts(mount.routes or (), found.group("path").rstrip("/") and "/" + found.group("path")[:-1])
            if inner is not None:
                return Mount(mount.path_format.removesuffix("/{path}") + inner.template, inner.routes)
    return None


def _plain(routes: Any, endpoint: Any, path: str) -> str | None:
    """Return the template of the Starlette route that answered: inside of FastAPI it does not tell itself."""
    for route in leaves(routes):
        if getattr(route, "endpoint", None) is endpoint and route.path_regex.match(path):
            return str(route.path_format)
    return None


def instrument(app: Any, make: Callable[..., asgi.Middleware]) -> Any:
    """Put the middleware outside of everything the application has, and return the very application.

    Args:
        app: a Starlette or FastAPI application, before or after its first request.
        make: builds the middleware around an ASGI callable: `make(Middleware, app)`.

    """
    if getattr(app, "__insitu__", False):
        return app
    telemetry = getattr(app, "_telemetry", None)
    if isinstance(telemetry, dict):
        # FastAPI (0.165) traces and measures as soon as a provider is set: 58 to 75 µs a request, and a
        # second SERVER span.
        telemetry.update(_OFF)

    def wrap(stack: asgi.App) -> asgi.Middleware:
        middleware = make(Middleware, stack)
        middleware.starlette, middleware._mounts = app, {}  # type: ignore[attr-defined]
        return middleware

    build = app.build_middleware_stack

    @functools.wraps(build)
    def build_middleware_stack() -> asgi.Middleware:
        return wrap(build())

    app.build_middleware_stack = build_middleware_stack
    if app.middleware_stack is not None:
        app.middleware_stack = wrap(app.middleware_stack)
    app.__insitu__ = True
    return app
