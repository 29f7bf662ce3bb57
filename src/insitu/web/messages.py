"""What comes in and goes out by HTTP, as no framework's object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from insitu.core import documents

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
EVENTS: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Request:
    """What an adapter knows of a request to one of our paths; header names are in lower case.

    Attributes:
        streams: whether the adapter can send what comes bit by bit, and meanwhile serve others.

    """

    method: str
    path: str
    headers: Mapping[str, str]
    peer: str | None
    query: str = ""
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """What an adapter sends.

    Attributes:
        events: what follows the body, a second apart, each taken from it where requests are answered; None: nothing.

    """

    status: int
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Iterator[bytes] | None = None


def document(content: Any) -> Response:
    """Return a document as JSON."""
    return Response(200, documents.dumps(content), JSON)


def problem(status: int, detail: str) -> Response:
    """Return an error as RFC 9457 has it."""
    return Response(status, documents.dumps({"status": status, "detail": detail}), "application/problem+json")
