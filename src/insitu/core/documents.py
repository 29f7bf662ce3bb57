"""JSON out and in, by orjson where there is one; what JSON has no form for is rendered as text."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from insitu.core import guard

try:
    import orjson
except ImportError:  # no wheel for this interpreter (free-threaded builds)
    orjson = None  # type: ignore[assignment]


def dumps(document: Any) -> bytes:
    """Return UTF-8 without blanks; never raises for plain values, however large, odd or broken."""
    if orjson is not None:
        try:
            return orjson.dumps(document, _unusual)
        except TypeError:  # a key that is no text; a lone surrogate, or an integer beyond 64 bits
            with suppress(TypeError):  # tried second: the option takes an eighth more
                return orjson.dumps(document, _unusual, orjson.OPT_NON_STR_KEYS)
    return json.dumps(document, default=_unusual, ensure_ascii=True, separators=(",", ":")).encode()


def loads(data: bytes) -> Any:
    """Return the document; ValueError when it is none."""
    return orjson.loads(data) if orjson is not None else json.loads(data)


def _unusual(value: object) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else guard.render(value)
