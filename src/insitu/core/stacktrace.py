"""An error record as text, in the layout that Python's own `traceback` module prints.

Formatting happens here, long after the exception was raised and only for what is exported or shown: with OpenTelemetry
it is 517 of the 557 µs that recording an exception costs, and it happens on the application's thread.
"""

from __future__ import annotations

import itertools
import linecache
from typing import TYPE_CHECKING, Any, Final

from insitu.core import guard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType

    from insitu.core.records import ErrorRecord, Frame

FINGERPRINT: Final = "insitu.fingerprint"
"""Attribute of an error, and of the span that it ends: which errors are one problem (`analysis.grouping`)."""
LIMIT: Final = 65_536
"""The longest text, in bytes of UTF-8."""

HEAD: Final = 30
"""How many of the outermost frames stay when a stack is so long that its middle is left out."""

MOST_CACHED: Final = 4_096
_LONGEST_LINE: Final = 1_000
_DEEPEST_GROUP: Final = 10  # as traceback.TracebackException's max_group_depth
_REPEATS_SHOWN: Final = 3  # as traceback.StackSummary.format

_CONNECTORS: Final = {
    "cause": "\nThe above exception was the direct cause of the following exception:\n\n",
    "context": "\nDuring handling of the above exception, another exception occurred:\n\n",
}
_CUT: Final = "\n[... cut ...]\n"

_frames: dict[tuple[int, int], tuple[CodeType, str]] = {}
"""Formatted frames. Keyed by identity, because code objects of different files may be equal; each entry holds its code
object, so that the identity cannot be given to another one."""


def attributes_of(error: ErrorRecord) -> dict[str, Any]:
    """Return an exception as OpenTelemetry's attributes, with its stack trace and the fingerprint of its group."""
    told = {"exception.type": error.type, "exception.message": error.message}
    told["exception.stacktrace"] = format_error(error)
    return told | {FINGERPRINT: error.fingerprint} if error.fingerprint else told


def format_error(error: ErrorRecord, limit: int = LIMIT) -> str:
    """Return the text that `traceback.format_exception` would give, without the carets below the source lines.

    Args:
        error: causes, contexts and group members are followed. In `chain`, a cause or context hangs on the cause or
            context before it in the list, the first one on the error itself; members belong to the error whose `chain`
            they are in. Whether a longer line of causes is one list or nested makes no difference.
        limit: the longest result, in bytes of UTF-8. The newest exceptions are the ones that stay, and a line says how
            many older ones were left out.

    """
    return _cut(_history(error, 0, limit), limit)


def _history(error: ErrorRecord, depth: int, room: int) -> str:
    """Return an error below all that led to it: written from the newest, which must not be lost, to the oldest."""
    lineage = _lineage(error)
    blocks: list[str] = []
    for position, link in enumerate(lineage):
        if room <= 0:
            blocks.append(_margin(f"[{len(lineage) - position} earlier exceptions omitted]\n", depth))
            break
        block = _block(link, depth, room)
        if position + 1 < len(lineage):
            block = _margin(_CONNECTORS[lineage[position + 1].relation or "context"], depth) + block
        blocks.append(block)
        room -= len(block)
    blocks.reverse()
    return "".join(blocks)


def _lineage(error: ErrorRecord) -> list[ErrorRecord]:
    """Return the error and what led to it, newest first: by a loop, since a chain may be longer than the call stack."""
    lineage, seen = [error], {id(error)}
    for link in lineage:
        for older in link.chain:
            if older.relation in _CONNECTORS and id(older) not in seen:
                seen.add(id(older))
                lineage.append(older)
    return lineage


def _block(error: ErrorRecord, depth: int, room: int) -> str:
    members = [link for link in error.chain if link.relation == "member"]
    if members and depth <= _DEEPEST_GROUP:
        return _group(error, members, depth, room)
    stack = "Traceback (most recent call last):\n" + _stack(error) if error.frames else ""
    return _margin(stack + _last_line(error), depth)


def _group(error: ErrorRecord, members: list[ErrorRecord], depth: int, room: int) -> str:
    """Return an exception group with its members below it, drawn with Python's own lines."""
    top = depth == 0
    depth = max(depth, 1)
    indent = "  " * depth
    head = _margin("Exception Group Traceback (most recent call last):\n", depth) if error.frames else ""
    text = [head.replace("|", "+", 1) if top else head, _margin(_stack(error) + _last_line(error), depth)]
    for number, member in enumerate(members, 1):
        room -= len(text[-1])
        fits = room > 0
        corner, title = "+-" if number == 1 else "  ", number if fits else "..."
        text.append(f"{indent}{corner}+---------------- {title} ----------------\n")
        if not fits:
            text.append(_margin(f"and {len(members) - number + 1} more\n", depth + 1))
            break
        text.append(_history(member, depth + 1, room))
    if not (fits and _closes(members[-1])):
        text.append(f"{indent}  +------------------------------------\n")
    return "".join(text)


def _closes(error: ErrorRecord) -> bool:
    """Say whether a member draws the closing line itself: Python draws one line where several groups end together."""
    return any(link.relation == "member" for link in error.chain)


def _margin(text: str, depth: int) -> str:
    if not depth:
        return text
    margin = "  " * depth + "| "
    return "".join(margin + line for line in text.splitlines(keepends=True))


def _last_line(error: ErrorRecord) -> str:
    return f"{error.type}: {error.message}\n" if error.message else f"{error.type}\n"


def _stack(error: ErrorRecord) -> str:
    """Return the frames, a repeated one three times and then as a count, and a line where frames were left out."""
    if not error.omitted:
        return "".join(_runs(error.frames))
    omitted = f"  [{error.omitted} frames omitted]\n"
    return "".join((*_runs(error.frames[:HEAD]), omitted, *_runs(error.frames[HEAD:])))


def _runs(frames: Iterable[Frame]) -> Iterator[str]:
    for text, run in itertools.groupby(frames, _frame):
        times = sum(1 for _ in run)
        yield text * min(times, _REPEATS_SHOWN)
        if times > _REPEATS_SHOWN:
            more = times - _REPEATS_SHOWN
            yield f"  [Previous line repeated {more} more time{'s' if more > 1 else ''}]\n"


def _frame(frame: Frame) -> str:
    code, line = frame
    known = _frames.get((id(code), line))
    if known is not None:
        return known[1]
    text = f'  File "{code.co_filename}", line {line}, in {code.co_name}\n'
    source = guard.call("stacktrace.source", linecache.getline, code.co_filename, line, default="").strip()
    if source:
        text += f"    {source[:_LONGEST_LINE]}\n"
    if len(_frames) >= MOST_CACHED:
        _frames.clear()
    _frames[id(code), line] = code, text
    return text


def _cut(text: str, limit: int) -> str:
    """Keep the beginning and, with the error's own last line, the end."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return text
    half = max(0, limit - len(_CUT)) // 2
    return encoded[:half].decode("utf-8", "ignore") + _CUT + encoded[len(encoded) - half :].decode("utf-8", "ignore")
