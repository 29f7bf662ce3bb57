"""Applications that nobody has instrumented in their code: `insitu run COMMAND`.

Each framework is waited for by its import, and its applications are instrumented when they first serve: what the
application says itself by then (`insitu.init(service="shop")`) holds.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import wrapt

from insitu.adapters.choice import adapter_of
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable

DJANGO: Final = "insitu.adapters.django.Middleware"
watching = False
"""Whether `watch` was called: for `doctor`."""


def watch(instrument: Callable[[Any], Any]) -> None:
    """Have `instrument` called with every application that is served from now on."""
    global watching
    watching = True
    for module, hook in (
        ("starlette.applications", functools.partial(_starlette, "Starlette")),
        ("fastapi.applications", functools.partial(_starlette, "FastAPI")),
        ("flask.app", _flask),
        ("django.core.handlers.base", _django),
        ("uvicorn.config", _uvicorn),
        ("gunicorn.app.base", _gunicorn),
    ):
        wrapt.register_post_import_hook(functools.partial(_guarded, hook, instrument), module)


def _guarded(hook: Callable[..., None], instrument: Callable[[Any], Any], module: Any) -> None:
    guard.call(f"automatic {module.__name__}", hook, instrument, module)


def _starlette(name: str, instrument: Callable[[Any], Any], module: Any) -> None:
    def build(wrapped: Callable[..., Any], app: Any, args: Any, kwargs: Any) -> Any:
        if not getattr(app, "__insitu__", False):
            instrument(app)
            if getattr(app, "__insitu__", False):
                return app.build_middleware_stack()
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, f"{name}.build_middleware_stack", build)


def _flask(instrument: Callable[[Any], Any], module: Any) -> None:
    serve = module.Flask.__call__

    @functools.wraps(serve)
    def call(app: Any, environ: Any, start_response: Any) -> Any:
        if "__insitu__" not in app.__dict__:
            app.__insitu__ = False  # once is enough, whatever comes of it
            instrument(app)
        return serve(app, environ, start_response)

    module.Flask.__call__ = call


def _django(_: Callable[[Any], Any], module: Any) -> None:
    def load(wrapped: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
        settings = module.settings
        if DJANGO not in settings.MIDDLEWARE:
            settings.MIDDLEWARE = [DJANGO, *settings.MIDDLEWARE]
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "BaseHandler.load_middleware", load)


def _uvicorn(instrument: Callable[[Any], Any], module: Any) -> None:
    def load(wrapped: Callable[..., Any], config: Any, args: Any, kwargs: Any) -> Any:
        loaded = wrapped(*args, **kwargs)
        if config.interface == "asgi3" and _is_bare(config.loaded_app):
            config.loaded_app = instrument(config.loaded_app)
        return loaded

    wrapt.wrap_function_wrapper(module, "Config.load", load)


def _gunicorn(instrument: Callable[[Any], Any], module: Any) -> None:
    def wsgi(wrapped: Callable[..., Any], server: Any, args: Any, kwargs: Any) -> Any:
        app = wrapped(*args, **kwargs)
        if _is_bare(app):
            server.callable = app = instrument(app)
        return app

    wrapt.wrap_function_wrapper(module, "BaseApplication.wsgi", wsgi)


def _is_bare(app: Any) -> bool:
    """Whether this is an ASGI or WSGI callable that no framework's hook above sees."""
    while type(app).__module__.startswith("uvicorn.middleware."):
        app = app.app
    of_django = any(each.__module__.startswith("django.core.handlers.") for each in type(app).__mro__)
    ours = type(app).__module__.startswith("insitu.")
    return not of_django and not ours and adapter_of(app) in ("asgi", "wsgi")
