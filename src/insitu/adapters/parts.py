"""What an adapter works with where its framework makes it, and not `insitu.instrument`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from insitu.signals.requests import Requests
    from insitu.web.api import Api


class Parts(NamedTuple):
    """What adapters share.

    Attributes:
        requests: the hot path.
        api: answers our own paths.
        read: runs a function on the reader's thread.
        header: name of a response header for the trace id, or None.
        watch: watches the event loop that it is called in.

    """

    requests: Requests
    api: Api
    read: Callable[[Callable[[], Any]], Future[Any]]
    header: str | None
    watch: Callable[[], object]


start: Callable[[], Parts | None] = lambda: None  # noqa: E731
"""Starts insitu if nobody has, and returns the parts; None where it is switched off. The runtime puts itself here."""
