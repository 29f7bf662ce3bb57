"""Flask: whose our paths are, and the exception that Flask turns into a 500 before anybody outside sees it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from flask import Flask, got_request_exception, request
from werkzeug.exceptions import HTTPException, NotFound

from insitu.adapters import wsgi
from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from insitu.adapters.wsgi_answers import Environ

_request: Any = request  # a proxy, which its type does not tell


class Middleware(wsgi.Middleware):
    """Knows Flask's routing. `flask` is the instrumented application."""

    flask: Any

    def owns(self, environ: Environ) -> bool | None:
        """Whether a rule of the application is meant for this very path; one that catches all is not."""
        try:
            rule, _ = self.flask.url_map.bind_to_environ(environ).match(return_rule=True)
        except NotFound:
            return False
        except HTTPException:  # another method, or a redirect to it
            return True
        return not rule.rule.startswith("/<")


def instrument(app: Any, make: Callable[..., Any]) -> Any:
    """Put the middleware around what Flask lets itself be wrapped by, and return the very application.

    Args:
        app: a Flask application, before or after its first request.
        make: builds the middleware around a WSGI callable: `make(Middleware, app)`.

    """
    if getattr(app, "__insitu__", False):
        return app
    theirs = app.wsgi_app
    app.wsgi_app = middleware = make(Middleware, theirs)
    middleware.flask = app
    got_request_exception.connect(_failed, app)
    if getattr(theirs, "__func__", None) is Flask.wsgi_app:  # nobody in between changes what Flask answers
        app.process_response = _watched(app.process_response)
    app.__insitu__ = True
    return app


def _watched(process: Callable[..., Any]) -> Callable[..., Any]:
    """Spare the server's way through a body that is there already: Flask knows, and the server's side does not."""

    @functools.wraps(process)
    def process_response(*given: Any) -> Any:
        response = process(*given)
        asked = _request._get_current_object()
        served = asked.environ.get(wsgi.KEY)
        pieces = getattr(response, "response", None)
        if served is not None and type(pieces) is list and len(pieces) == 1 and type(pieces[0]) is bytes:
            served.there(len(pieces[0]))
            if (rule := asked.url_rule) is not None:
                served.tell(rule.rule)
        return response

    return process_response


def _failed(_: object, exception: BaseException, **__: object) -> None:
    served = request.environ.get(wsgi.KEY)
    if served is not None:
        guard.call("flask.failed", served.failed, exception)
