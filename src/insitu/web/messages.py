"""What comes in and goes out by HTTP, as no framework's object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from insitu.core import documents

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What an adapter knows of a request to one of our paths; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    peer: str | None
    query: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What an adapter sends."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


def document(content: Any) -> Response:
    """Return a document as JSON."""
    return Response(200, documents.dumps(content), JSON)


def problem(status: int, detail: str) -> Response:
    """Return an error as RFC 9457 has it."""
    return Response(status, documents.dumps({"status": status, "detail": detail}), "application/problem+json")
