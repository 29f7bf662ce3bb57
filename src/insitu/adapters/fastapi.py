"""FastAPI and Starlette.

The route's template, also below mounts, and FastAPI's own telemetry switched off for the application.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from insitu.adapters import asgi
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable

_OFF: Final = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
_PREFIXES: Final = 512


class Middleware(asgi.Middleware):
    """Knows Starlette's routing. `starlette` is the instrumented application."""

    starlette: Any
    _prefixes: dict[str, str]

    def route(self, scope: asgi.Scope) -> str:
        """Return the template of the route that matched, with the templates of the mounts above it."""
        path = getattr(scope.get("route"), "path_format", None)
        if path is None:
            return ""
        below = scope.get("app_root_path")
        if below is None:
            return path  # type: ignore[no-any-return]
        # Below a mount, root_path has grown by what the mount matched: values, where its template has parameters.
        matched = scope["root_path"][len(below) :]
        return self._prefix(matched) + ("" if path.endswith("/{path}") and path == "/{path}" else path)

    def _prefix(self, matched: str) -> str:
        found = self._prefixes.get(matched)
        if found is None:
            found = guard.call("fastapi.mount", template_of, self.starlette.routes, matched, default="")
            if len(self._prefixes) < _PREFIXES:
                self._prefixes[matched] = found
        return found

    def owns(self, scope: asgi.Scope) -> bool | None:
        """Whether a route of the application is meant for this very path; a catch-all is not."""
        for route in self.starlette.routes:
            match, _ = route.matches(scope)
            if (
                match.value
                and not getattr(route, "path", "").startswith(("/{", "{"))
                and getattr(route, "path", None) != ""
            ):
                return True
        return False


def template_of(routes: Any, matched: str) -> str:
    """Return the joined templates of the mounts that consumed `matched`, "" when they cannot be told."""
    if not matched:
        return ""
    for mount in routes:
        regex, path = getattr(mount, "path_regex", None), getattr(mount, "path", None)
        if regex is None or not path or not hasattr(mount, "app"):
            continue
        found = regex.match(f"{matched}/")
        if found is None:
            continue
        rest = "/" + found.group("path") if "path" in found.groupdict() else ""
        inner = rest.rstrip("/")
        return str(path) + (template_of(getattr(mount, "routes", None) or (), inner) if inner else "")
    return ""


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
        middleware.starlette, middleware._prefixes = app, {}  # type: ignore[attr-defined]
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
