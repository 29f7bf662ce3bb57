"""What comes in, told as it comes: server-sent events (HTML Living Standard, 9.2).

A stream ends by itself after some seconds and the browser comes back, so that no server waits for a page to be closed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from insitu.core import documents
from insitu.core.questions import FOREVER
from insitu.web.messages import EVENTS, Response, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from insitu.core.questions import Answer
    from insitu.web.messages import Request

MOST: Final = 4
"""Streams at once; whoever finds no place polls instead."""
_LOOKS: Final = 6
"""One a second, and one at the beginning: a stream is over after five seconds."""
_LATE: Final = 5 * 10**9
"""A record is found so much later than it was made at the latest: it was queued, and is another process's."""
_BACK_SOON: Final = b"retry: 1000\n"
"""Milliseconds until the browser asks again."""


class Streams:
    """Those that are open.

    Args:
        now: wall nanoseconds.

    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        # A stream has its place for as long as an adapter holds it, so that none is taken for ever.
        self._open: WeakSet[Iterator[bytes]] = WeakSet()

    def opened(self, name: str, look: Callable[[int], Answer], request: Request) -> Response:
        """Return a stream, or 503 where there is no place or the server cannot send one.

        Args:
            name: of what is told; an event is `{name: [...], "partial": ...}`.
            look: returns what began at a moment or later, the newest first.
            request: may say where the stream before has ended.

        """
        if not request.streams:
            return problem(503, f"this server streams nothing; ask {name} again and again instead")
        if len(self._open) >= MOST:
            return problem(503, f"{MOST} streams are open, as many as may be; ask {name} again and again instead")
        events = _events(name, look, self._now, min(_seen(request), self._now()) - _LATE)
        self._open.add(events)
        return Response(200, b"", EVENTS, events=events)


def _seen(request: Request) -> int:
    """Return the moment up to which everything was told: the id of the event before."""
    last = request.headers.get("last-event-id", "")
    return int(last) if re.fullmatch("[0-9]{1,19}", last) else FOREVER


def _events(name: str, look: Callable[[int], Answer], now: Callable[[], int], since: int) -> Iterator[bytes]:
    """Yield an event for each look; one without news is a comment, which shows whether somebody is still there."""
    told: set[bytes] = set()
    head = _BACK_SOON
    for _ in range(_LOOKS):
        moment = now()
        answer = look(since)
        found = {documents.dumps(each): each for each in answer.found}
        news = [each for key, each in found.items() if key not in told]
        yield head + (_event(name, news, answer, moment) if news else b":\n\n")
        # What is older than the next look's beginning cannot come again.
        told, since, head = set(found), max(since, moment - _LATE), b""


def _event(name: str, news: list[dict[str, Any]], answer: Answer, moment: int) -> bytes:
    data = documents.dumps({name: news, "partial": answer.cursor is not None})
    return b"id: %d\ndata: %b\n\n" % (moment, data)
