"""Which errors are one problem: a fingerprint that stays the same however often, when and in which release one happens.

Errors belong together when the same kind of exception leaves the same places of the application in the same way. Of a
place its module and function count, never its line; frames of libraries only where the application has none. Of a
message count the words that the raising function has in its own constants: `no price for {product}` is told from `no
stock of {product}`, and the product is neither here nor there.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from insitu.core.records import Error, LocalTrace, LogRecord
from insitu.core.stacktrace import FINGERPRINT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import CodeType

    from insitu.core.records import ErrorRecord, Frame, Record

PLACES: Final = 12
"""The innermost places of the application that count."""
_OF_LIBRARIES: Final = 3
_WORDS: Final = 24
_CAUSES: Final = 8
_MOST_KNOWN: Final = 8_192
_CONSTANTS: Final = 4_096
"""Characters of a function's constants whose words are remembered."""
_FILES: Final = 2_048
_LONGEST: Final = 500
"""Of the messages that are remembered."""
_MOST_GROUPS: Final = 1_000
_MOST_FRAMES: Final = 50_000
"""Of all shapes that are known: some 5 MB."""
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_NUMBER: Final = re.compile(r"\d+")
_INLINED: Final = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>"})
"""Functions of their own until Python 3.11, and none since."""
_PACKAGES: Final = ("site-packages", "dist-packages")
_FOLDERS: Final = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(__file__).parents[1]))
_OTHERS: Final = ("<frozen", *(f"{folder}{os.sep}" for folder in _FOLDERS))
"""How the files of Python, and ours, begin."""

_Shape = tuple[str, str, tuple[int, ...], tuple["_Shape", ...]]


@dataclass(slots=True)
class _Group:
    """What is known of errors of one shape; it holds their code, whose identities no other code can be given then."""

    frames: list[Sequence[Frame]]
    identity: str
    last: tuple[str | None, str] = (None, "")
    """The last message, and its fingerprint."""


_groups: dict[_Shape, _Group] = {}
_held = 0
_known: dict[int, tuple[CodeType, str, bool, frozenset[str]]] = {}
"""What is known of code, by its identity."""


def fingerprint(error: ErrorRecord) -> str:
    """Return the fingerprint of an error's group: 16 hexadecimal digits."""
    shape = _shape(error)
    group = _groups.get(shape) or _new(shape, error)
    message, known = group.last
    if message != error.message:
        told = f"{group.identity}\n{_words(error)}".encode("utf-8", "replace")
        known = blake2b(told, digest_size=8).hexdigest()
        if len(error.message) <= _LONGEST:
            group.last = error.message, known  # at once: where the queue is full, callers come here as well
    return known


def _shape(error: ErrorRecord) -> _Shape:
    """Return all that an identity is made of, code by its own identity: what a known error is recognised by."""
    chain = tuple([_shape(link) for link in error.chain]) if error.chain else ()
    return error.type, error.relation, tuple([id(code) for code, _ in error.frames]), chain


def _new(shape: _Shape, error: ErrorRecord) -> _Group:
    global _held
    frames = list(_frames(error))
    added = sum(map(len, frames))
    if len(_groups) >= _MOST_GROUPS or _held + added > _MOST_FRAMES:
        _groups.clear()
        _held = 0
    _held += added
    group = _groups[shape] = _Group(frames, "\n".join(_identity(error)))
    return group


def _frames(error: ErrorRecord) -> Iterator[Sequence[Frame]]:
    yield error.frames
    for link in error.chain:
        yield from _frames(link)


def _identity(error: ErrorRecord) -> Iterator[str]:
    yield error.type
    yield from _places(error.frames)
    # What was being handled is left out: an error is the same whatever else had gone wrong before.
    for cause in islice(_causes(error), _CAUSES):
        yield f"caused by {cause.type}"
        yield from _places(cause.frames)[-1:]
    yield from sorted({"\n".join(_identity(member)) for member in error.chain if member.relation == "member"})


def _causes(error: ErrorRecord) -> Iterator[ErrorRecord]:
    for link in error.chain:
        if link.relation == "cause":
            yield link
            yield from _causes(link)


def _places(frames: Iterable[Frame]) -> list[str]:
    """Return the places that count, each once: how deep a recursion went says nothing."""
    own: dict[str, None] = {}
    others: dict[str, None] = {}
    for frame in frames:
        _, place, is_own, _ = _about(frame.code)
        if place:
            (own if is_own else others)[place] = None
    return list(own)[-PLACES:] or list(others)[-_OF_LIBRARIES:]


def _words(error: ErrorRecord) -> str:
    """Return of the message what the code that raised says always; of an error without frames what is no value."""
    words = _WORD.findall(error.message)
    if error.frames:
        constant = _about(error.frames[-1].code)[3]
        words = [word for word in words if word in constant]
    return " ".join(words[:_WORDS])


def _about(code: CodeType) -> tuple[CodeType, str, bool, frozenset[str]]:
    """Return (code, place, whether it is the application's, words of its constants)."""
    known = _known.get(id(code))
    if known is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        is_own = _is_own(code.co_filename)
        constants = " ".join(_texts(code.co_consts))[:_CONSTANTS] if is_own else ""
        words = frozenset(_WORD.findall(constants))
        known = _known[id(code)] = (code, _place(code), is_own, words)
    return known


def _place(code: CodeType) -> str:
    if code.co_name in _INLINED:
        return ""
    if code.co_filename.startswith("<"):  # generated: it may be numbered
        return f"<> {_NUMBER.sub('#', code.co_qualname)}"
    return f"{_module(code.co_filename)} {code.co_qualname}"


def _texts(constants: Iterable[Any]) -> Iterator[str]:
    for constant in constants:
        if type(constant) is str:
            yield constant
        elif type(constant) is tuple:
            yield from _texts(constant)


@lru_cache(_FILES)
def _is_own(file: str) -> bool:
    """Whether a file is the application's: neither of Python, nor of an installed package, nor ours."""
    return not file.startswith(_OTHERS) and not any(part in _PACKAGES for part in Path(file).parts)


@lru_cache(_FILES)
def _module(file: str) -> str:
    """Return a file below the folder that it is imported from: where a release is unpacked says nothing."""
    roots = [root.rstrip(os.sep) + os.sep for root in sys.path if root]
    longest = max((len(root) for root in roots if file.startswith(root)), default=0)
    return (Path(file[longest:]) if longest else Path(*Path(file).parts[-2:])).as_posix()


def mark(record: Record) -> None:
    """Write fingerprints into the errors of a record, and on the spans that end with one."""
    if isinstance(record, LocalTrace):
        for span in record.spans:
            for event in span.events or ():
                if event.error is not None:
                    event.error.fingerprint = fingerprint(event.error)
                    if span.status_code == Error:
                        span.own = {**(span.own or {}), FINGERPRINT: event.error.fingerprint}
    else:
        error = record.error if isinstance(record, LogRecord) else record
        if error is not None:
            error.fingerprint = fingerprint(error)
