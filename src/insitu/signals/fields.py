"""Fields that stand on every signal from here on: who the user is, which tenant, what else the application says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from insitu.core import context, guard, values

if TYPE_CHECKING:
    from collections.abc import Mapping


@guard.safe("bind", default=context.Bound(None, None))
def _bind(given: Mapping[str, Any]) -> context.Bound:
    return context.bind(
        {
            context.CONVENTIONAL.get(key, key): values.plain(value, 256)
            for key, value in given.items()
            if value is not None
        }
    )


def bind(**fields: Any) -> context.Bound:
    """Bind fields to every signal of the current trace, or of the current context outside of one.

    Args:
        fields: `user`, `tenant` and `session` become `user.id`, `tenant.id` and `session.id`; others keep their names.

    Returns:
        A context manager that takes them back; without `with` they stay for the rest of the trace.

    """
    return _bind(fields)
