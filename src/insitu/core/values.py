"""What a value of the application may look like once it is ours: plain, bounded, and safe to keep.

Exact str, bytes, int, float and bool are kept as given and long ones are cut at once. Anything else is rendered by
the caller, guarded, because it may change or detach later (an ORM object does), and its `__str__` may raise.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from insitu.core import guard

LIMIT: Final = 8_192
"""Characters (or bytes) of one value, unless OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT says less."""
DEPTH: Final = 4
ITEMS: Final = 128
ROOM: Final = 65_536
"""Bytes of one container with all that it holds: lists of lists of a long text would grow by a power otherwise."""
INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1
SMALL: Final = 256
"""Texts up to this length are covered by the base weight of a record."""

_ITEM_BYTES: Final = 32
_LARGE: Final = 1 << 1_024
"""Integers from here on are kept as text."""
_SCALARS: Final = frozenset((float, bool))
_deep: Final = reprlib.Repr()
"""Shows what lies too deep: `str` would render all of it, however large."""


def plain(value: object, limit: int = LIMIT, depth: int = DEPTH) -> Any:
    """Return `value` as str, bytes, int, float, bool, tuple of these, or dict with str keys of these.

    Args:
        value: anything at all.
        limit: the longest text or bytes kept.
        depth: how deep sequences and mappings are followed; what lies deeper is rendered as text.

    Items beyond ITEMS, and those that find no room in ROOM bytes, are left out.
    """
    kind = type(value)
    if kind is str:
        return value if len(value) <= limit else value[:limit]  # type: ignore[arg-type,index]
    if kind in _SCALARS or (kind is int and -_LARGE < value < _LARGE):  # type: ignore[operator]
        return value
    return _unusual(value, limit, depth, [ROOM])


def _unusual(value: object, limit: int, depth: int, room: list[int]) -> Any:
    made = guard.call("values.plain", _made_plain, value, limit, depth, room)
    return made if made is not None else f"<unprintable {guard.type_name(value)[:64]}>"


def _made_plain(value: object, limit: int, depth: int, room: list[int]) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        view = memoryview(value)
        return bytes(view.cast("B")[:limit]) if view.c_contiguous else view.tobytes()[:limit]
    if isinstance(value, Mapping):
        return _mapping(value, limit, depth - 1, room) if depth > 0 else _deep.repr(value)[:limit]
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return _sequence(value, limit, depth - 1, room) if depth > 0 else _deep.repr(value)[:limit]
    return guard.render(value, limit)


def _mapping(value: Mapping[Any, Any], limit: int, depth: int, room: list[int]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, item, _ in zip(value.keys(), value.values(), range(ITEMS), strict=False):
        name = text(key, SMALL)
        room[0] -= len(name) + _ITEM_BYTES
        if room[0] < 0:
            break
        made[name] = _item(item, limit, depth, room)
    return made


def _sequence(value: Iterable[Any], limit: int, depth: int, room: list[int]) -> tuple[Any, ...]:
    made: list[Any] = []
    for item, _ in zip(value, range(ITEMS), strict=False):
        room[0] -= _ITEM_BYTES
        if room[0] < 0:
            break
        made.append(_item(item, limit, depth, room))
    return tuple(made)


def _item(value: object, limit: int, depth: int, room: list[int]) -> Any:
    limit = min(limit, max(0, room[0]))
    kind = type(value)
    if kind is str or kind in _SCALARS or kind is int:
        made = plain(value, limit)
    else:
        made = _unusual(value, limit, depth, room)
    if isinstance(made, str | bytes):
        room[0] -= len(made)
    return made


def text(value: object, limit: int = LIMIT) -> str:
    """Return a name, key or message as an exact, bounded str."""
    if type(value) is str and len(value) <= limit:
        return value
    return guard.render(value, limit)


def weight(value: object) -> int:
    """Return the bytes that a plain value holds beyond what a record's base weight covers."""
    if isinstance(value, str | bytes):
        return len(value) if len(value) > SMALL else 0
    if isinstance(value, tuple):
        return 64 + sum(weight(item) + 32 for item in value)
    if isinstance(value, dict):
        return 64 + sum(weight(key) + weight(item) + 64 for key, item in value.items())
    return 0


def truth(value: object) -> bool:
    """Return the truth of what should be a bool, True where it has none."""
    return value is True or (value is not False and guard.attempt(bool, value, default=True) is True)
