"""Every text of a record through the redactor, in place, before anything keeps or exports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from insitu.core.records import ErrorRecord, LocalTrace, LogRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from insitu.core.records import Place, Record, SpanEvent, SpanRecord
    from insitu.core.redact import Redactor

_ADDRESSES: Final = ("url.query", "url.full")
_PLACES: Final = 1_024
"""Places of log calls whose clean form is remembered."""


class Cleaner:
    """Knows where a record has texts.

    Args:
        redactor: knows what a secret is.

    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._places: dict[Place, Place] = {}

    def clean(self, record: Record) -> None:
        """Take the secrets out of a record."""
        if type(record) is LogRecord:
            self._log(record)
        elif type(record) is LocalTrace:
            for span in record.spans:
                self._span(span)
            for error in (record.errors or {}).values():
                self._error(error)
        elif type(record) is ErrorRecord:
            self._error(record)

    def _span(self, span: SpanRecord) -> None:
        redactor = self._redactor
        own = redactor.attributes(span.settle())
        if "url.query" in own or "url.full" in own:
            own = self._without_encoded_names(own)
        span.own = own  # type: ignore[assignment]
        span.name = redactor.text(span.name)
        if span.status_text:
            span.status_text = redactor.text(span.status_text)
        if span.events:
            for event in span.events:
                self._event(event)
        if span.links:
            for link in span.links:
                link.attributes.update(redactor.attributes(link.attributes))

    def _without_encoded_names(self, own: Mapping[str, object]) -> Mapping[str, object]:
        """Clean addresses once more: `%74oken=...`, the encoded name of a parameter, hides from `text`."""
        for key in _ADDRESSES:
            if key in own and "%" in (address := str(own[key])):
                own = {**own, key: self._redactor.url(address)}
        return own

    def _event(self, event: SpanEvent) -> None:
        event.name = self._redactor.text(event.name)
        event.attributes = self._redactor.attributes(event.attributes)  # type: ignore[assignment]
        if event.error is not None:
            self._error(event.error)

    def _log(self, record: LogRecord) -> None:
        redactor = self._redactor
        if record.attributes:
            record.attributes = redactor.attributes(record.attributes)  # type: ignore[assignment]
        body = record.body
        record.body = redactor.text(body) if type(body) is str else redactor.value("body", body)
        if record.place is not None:
            record.place = self._places.get(record.place) or self._clean_place(record.place)
        if record.error is not None:
            self._error(record.error)

    def _clean_place(self, place: Place) -> Place:
        file, line, function = place
        if len(self._places) >= _PLACES:
            self._places.clear()
        self._places[place] = clean = (self._redactor.text(file), line, self._redactor.text(function))
        return clean

    def _error(self, error: ErrorRecord) -> None:
        error.message = self._redactor.text(error.message)
        if error.attributes:
            error.attributes = self._redactor.attributes(error.attributes)
        for linked in error.chain:
            self._error(linked)
