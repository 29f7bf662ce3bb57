"""`insitu.webhook`: what the application tells other services, and whether they took it.

with insitu.webhook("n8n", event="order.placed") as delivery:
    delivery.answered(httpx.post(url, json=order))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from insitu.core import guard, values
from insitu.signals.block import span
from insitu.signals.errors import type_name
from insitu.signals.metrics import DURATION_BOUNDS, registry
from insitu.signals.tracing import SILENT, provider

if TYPE_CHECKING:
    from types import TracebackType

_FAILED: Final = 400
_duration: Final = registry.instrument(
    "insitu.webhook.duration",
    "histogram",
    "s",
    "Webhooks that were sent, by whether they were taken.",
    bounds=DURATION_BOUNDS,
)


class Webhook:
    """What `insitu.webhook` returns: a context manager, `with` and `async with`, for one delivery.

    It fails with the exception that leaves the block, with an answer of 400 or more, and where `failed` says so.
    """

    __slots__ = ("_attributes", "_block", "_error", "_name", "_since")

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self._name = name
        self._attributes = attributes
        self._error = ""
        self._since = 0
        self._block: Any = SILENT

    def answered(self, response: Any) -> None:
        """Say what was answered: a status, or a response of httpx, requests, urllib3 or aiohttp."""
        guard.call("webhook", self._answered, response)

    def _answered(self, response: Any) -> None:
        status = int(getattr(response, "status_code", getattr(response, "status", response)))
        self._block.set(**{"http.response.status_code": status})
        if status >= _FAILED:
            self.failed(str(status))

    def failed(self, why: str) -> None:
        """Say that it was not taken, in a word or two that have few values: they are a label."""
        self._error = values.text(why, values.SMALL)
        self._block.set(**{"error.type": self._error})

    def __enter__(self) -> Self:
        """Begin the span."""
        self._since = provider.monotonic()
        self._block = span(f"webhook {self._name}", **{"insitu.webhook.name": self._name, **self._attributes})
        self._block = self._block.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, and count. The exception goes on as it is."""
        self._block.__exit__(kind, error, traceback)
        if isinstance(error, Exception):  # a cancellation is nobody's failure
            self._error = type_name(error)
        guard.call("webhook", self._measure)

    def _measure(self) -> None:
        if registry.on:
            labels = {"webhook": self._name, "outcome": "failure" if self._error else "success"}
            if self._error:
                labels["error.type"] = self._error
            _duration.record(labels, (provider.monotonic() - self._since) / 1e9)

    async def __aenter__(self) -> Self:
        """As `with`."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As `with`."""
        self.__exit__(kind, error, traceback)


def webhook(name: str, /, **attributes: Any) -> Webhook:
    """Time the delivery of a webhook, and count whether it was taken.

    Args:
        name: of who gets it, in few words (`n8n`, `billing`): a label.
        attributes: what is known about it, such as `event="order.placed"`; they stand on the span.

    Returns:
        A context manager; its `answered(response)` says what came back.

    """
    return Webhook(values.text(name, values.SMALL), attributes)
