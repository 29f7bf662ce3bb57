"""Whether a library's calls are insitu's to tell, or somebody else's: OpenTelemetry has packages for the same ones."""

from __future__ import annotations

import sys
from typing import Final

from opentelemetry.trace import SpanKind

from insitu.core import context
from insitu.core.records import Scope
from insitu.signals import tracing
from insitu.signals.spans import Span

_CLIENT: Final = SpanKind.CLIENT


class Library:
    """One library that insitu has a hook of its own for.

    Args:
        name: `httpx`: of our scope, `insitu.httpx`, and of OpenTelemetry's module for the same.
        instrumentor: the class in OpenTelemetry's module.
        module: of OpenTelemetry's, where it has another name.

    """

    def __init__(self, name: str, instrumentor: str, module: str = "") -> None:
        self.scope = Scope(f"insitu.{name}")
        self._module = f"opentelemetry.instrumentation.{module or name.replace('-', '_')}"
        self._instrumentor = instrumentor

    def is_left_alone(self) -> bool:
        """Whether a call is somebody else's to trace.

        Insitu's own export, what a hook that the application chose tells of, or what an instrumented client does below.
        """
        current = context.current()
        if not tracing.provider.on or current.get(context.SUPPRESS_KEY) or current.get(context.SUPPRESS_HTTP_KEY):
            return True
        span = current.get(context.SPAN_KEY)
        if isinstance(span, Span) and span.scope.name == self._module and span.kind is _CLIENT and not span.end_time:
            return True  # an instrumented client, or session, of which the class knows nothing
        theirs = getattr(sys.modules.get(self._module), self._instrumentor, None)
        return theirs is not None and bool(theirs().is_instrumented_by_opentelemetry)
