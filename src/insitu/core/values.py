"""What a value of the application may look like once it is ours: plain, bounded, and safe to keep.

Exact str, bytes, int, float and bool are kept as given and long ones are cut at once. Anything else is rendered by
the caller, guarded, because it may change or detach later (an ORM object does), and its `__str__` may raise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from insitu.core import guard

LIMIT: Final = 8_192
"""Characters (or bytes) of one value, unless OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT says less."""
DEPTH: Final = 4
ITEMS: Final = 128

_SCALARS: Final = frozenset((int, float, bool))


def plain(value: object, limit: int = LIMIT, depth: int = DEPTH) -> Any:
    """Return `value` as str, bytes, int, float, bool, tuple of these, or dict with str keys of these.

    Args:
        value: anything at all.
        limit: the longest text or bytes kept.
        depth: how deep sequences and mappings are followed; what lies deeper is rendered as text.

    """
    kind = type(value)
    if kind is str:
        return value if len(value) <= limit else value[:limit]  # type: ignore[arg-type,index]
    if kind in _SCALARS:
        return value
    return guard.call("values.plain", _unusual, value, limit, depth, default=f"<unprintable {kind.__name__}>")


def _unusual(value: object, limit: int, depth: int) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[:limit])
    if depth > 0 and isinstance(value, Mapping):
        return {
            text(key, limit): plain(item, limit, depth - 1)
            for key, item, _ in zip(value.keys(), value.values(), range(ITEMS), strict=False)
        }
    if depth > 0 and isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return tuple(plain(item, limit, depth - 1) for item, _ in zip(value, range(ITEMS), strict=False))
    return guard.render(value, limit)


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


SMALL: Final = 256
"""Texts up to this length are covered by the base weight of a record."""
