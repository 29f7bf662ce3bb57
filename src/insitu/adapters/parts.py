"""What an adapter works with where its framework makes it, and not `insitu.instrument`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from insitu.signals.requests import Requests
    from insitu.web.api import Api


class Parts(NamedTuple):
    """The hot path, what answers our own paths, what runs a function on the reader's thread, and a header's name."""

    requests: Requests
    api: Api
    read: Callable[[Callable[[], Any]], Future[Any]]
    header: str | None


start: Callable[[], Parts | None] = lambda: None  # noqa: E731
"""Starts insitu if nobody has, and returns the parts; None where it is switched off. The runtime puts itself here."""
