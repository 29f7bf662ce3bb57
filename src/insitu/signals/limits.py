"""How much a span may hold, and given attributes within that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from insitu.core import guard, values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from insitu.core.records import Attributes


@dataclass(frozen=True, slots=True)
class Limits:
    """Span limits (OTEL_SPAN_*_LIMIT, OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT)."""

    attributes: int = 128
    events: int = 128
    links: int = 128
    value_length: int = values.LIMIT
    small: int = field(init=False)
    """Texts up to this length need no look."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "small", min(values.SMALL, self.value_length))


def clean(attributes: Mapping[str, Any], limits: Limits) -> Attributes:
    """Return given attributes as a plain dict of our own, within the limits."""
    return guard.call("attributes", _clean, attributes, limits, default={})


def _clean(attributes: Mapping[str, Any], limits: Limits) -> Attributes:
    items = list(attributes.items())[: limits.attributes]
    return {
        values.text(key, values.SMALL): values.plain(value, limits.value_length)
        for key, value in items
        if value is not None
    }
