"""Which adapter an application needs, told by what it has: no framework is imported for it."""

from __future__ import annotations

import inspect
from typing import Any, Final

_WSGI: Final = ("environ", "start_response")


def adapter_of(app: object) -> str:
    """Return `fastapi` (Starlette's, too), `flask`, `asgi` or `wsgi`; "" for what is no application."""
    if hasattr(app, "build_middleware_stack"):
        return "fastapi"
    if hasattr(app, "wsgi_app") and hasattr(app, "url_map"):
        return "flask"
    if not callable(app):
        return ""
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__):
        return "asgi"
    return "wsgi" if _takes(app, _WSGI) else "asgi"  # one that takes anything and awaits nothing is WSGI's


def _takes(app: Any, arguments: tuple[str, ...]) -> bool:
    try:
        inspect.signature(app).bind(*arguments)
    except (TypeError, ValueError):  # it does not tell
        return False
    return True
