"""Log records, from the standard library's loggers and from `insitu.log`, with the trace they belong to.

The host's logging stays as it is: one wrap of `Logger.callHandlers` sees each record that a logger lets through,
before its handlers do. No handler is added and no level changed, so `basicConfig` and `dictConfig` work as before.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs as api

from insitu.core import context, guard, values
from insitu.core.budget import turns
from insitu.core.records import LOG_BYTES, Family, LogRecord, Point
from insitu.signals import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from insitu.core.pipeline import Pipeline
    from insitu.core.records import Attributes, Place

BODY: Final = 8_192
FIELDS: Final = 64
FIELD_BYTES: Final = 100
"""What a short field weighs."""
DEBUG, INFO, WARN, ERROR, FATAL = 5, 9, 13, 17, 21
_OURS: Final = "insitu"
_OURS_ENDS: Final = slice(len(_OURS), len(_OURS) + 1)
_SMALL: Final = values.SMALL
_PATH: Final = 1_024
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_turns: Final = turns()
_STANDARD_COUNT: Final = len(vars(logging.makeLogRecord({})))


def severity(level: int) -> int:
    """Return OpenTelemetry's severity number for a level of the standard library: 4 numbers for each of its tens."""
    if level >= logging.CRITICAL:
        return FATAL
    if level < logging.DEBUG:
        return 1
    return 1 + 4 * (level // 10) + (level % 10) * 4 // 10


def _extra(given: dict[str, Any]) -> tuple[Attributes, int]:
    """Return what `extra=` has added, and about how many bytes that is."""
    fields: Attributes = {}
    weight = 0
    # They come behind the standard attributes, because `makeRecord` adds them last.
    for key in itertools.islice(given, _STANDARD_COUNT, None):
        value = given[key]
        if value is None or key in _STANDARD or len(fields) >= FIELDS:
            continue
        kind = type(value)
        if (kind is not str or len(value) > _SMALL) and kind is not int and kind is not float:
            value = values.plain(value)
            weight += values.weight(value)
        fields[key if type(key) is str and len(key) <= _SMALL else values.text(key, _SMALL)] = value
        weight += FIELD_BYTES
    return fields, weight


def _place(file: object, line: object, function: object) -> Place:
    """Return the place of a record that was made by hand, or came from another process."""
    return values.text(file or "", _PATH), line if type(line) is int else 0, values.text(function or "", _SMALL)


class Logs:
    """Captures and counts log records."""

    def __init__(self) -> None:
        self.pipeline: Pipeline | None = None
        self._original: Callable[[logging.Logger, logging.LogRecord], None] | None = None
        self.counts_only = False
        """Whether records go no further than into the counter: the budget says so."""
        self._lock = threading.RLock()
        self._counts: dict[str, int] = {}
        self._skipped = 0

    def attach(self, pipeline: Pipeline | None) -> None:
        """Capture for `pipeline` from now on; None takes the wrap away again."""
        self.pipeline = pipeline
        if pipeline is not None:
            self._install()
        else:
            self._remove()

    def _install(self) -> None:
        if self._original is not None:
            return
        original = self._original = logging.Logger.callHandlers
        capture = self.capture

        def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
            guard.call("logs.capture", capture, record)
            original(logger, record)

        call_handlers.__insitu__ = True  # type: ignore[attr-defined]
        logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign,assignment]

    def _remove(self) -> None:
        # Somebody who wrapped after us stays; our own wrap then sees no pipeline and does nothing.
        if self._original is not None and hasattr(logging.Logger.callHandlers, "__insitu__"):
            logging.Logger.callHandlers = self._original  # type: ignore[method-assign,assignment]
            self._original = None

    def capture(self, record: logging.LogRecord) -> None:
        """Take a record of the standard library."""
        pipeline = self.pipeline
        if pipeline is None:
            return
        current = context.current()
        name = record.name
        if current.get(context.SUPPRESS_KEY) or (name.startswith(_OURS) and name[_OURS_ENDS] in ("", ".")):
            return
        began = pipeline.clock.monotonic() if next(_turns) else 0
        body = record.msg
        if record.args or type(body) is not str:
            body = guard.attempt(record.getMessage)
            if body is None:
                body = f"{guard.render(record.msg, BODY)} {guard.render(record.args, BODY)}"
        if type(body) is not str or len(body) > BODY:
            body = values.text(body, BODY)
        place = file, line, function = record.pathname, record.lineno, record.funcName
        if type(file) is not str or len(file) > _PATH or type(line) is not int or type(function) is not str:
            place = _place(file, line, function)
        weight = LOG_BYTES + len(body)
        given = record.__dict__
        fields = None
        if len(given) > _STANDARD_COUNT:
            fields, heavy = _extra(given)
            weight += heavy
        level = record.levelno
        number = _SEVERITIES.get(level) or (severity(level) if type(level) is int else INFO)
        made = LogRecord(int(record.created * 1e9), number, record.levelname, name, body, fields)
        made.place = place
        error = record.exc_info[1] if type(record.exc_info) is tuple else None
        self.send(made, current.get(context.SPAN_KEY), error, weight)
        if began:
            pipeline.meter.hot(pipeline.clock.monotonic() - began)

    def send(self, record: LogRecord, span: object, error: BaseException | None, weight: int) -> None:
        """Give a record its trace, its bound fields and its exception, and queue it."""
        pipeline = self.pipeline
        if pipeline is None:
            return
        if self.counts_only:
            self._skip(record)
            return
        trace = getattr(span, "trace", None)
        if trace is not None:
            record.trace_id, record.span_id, record.flags = trace.trace_id, span.span_id, trace.flags  # type: ignore[attr-defined]
            bound = trace.bound
        else:
            bound = context.fields.get()
        if bound:
            record.attributes = {**bound, **(record.attributes or {})}
        if isinstance(error, BaseException):
            record.error = errors.describe(error)
            weight += errors.weight(record.error)
        pipeline.put(record, weight)

    def _skip(self, record: LogRecord) -> None:
        with self._lock:
            self.count((record,))
            self._skipped += 1

    def count(self, records: Iterable[LogRecord]) -> None:
        """Fold records into the counter by level; called once for each."""
        counts = self._counts
        for record in records:
            level = record.level if record.level in counts or len(counts) < 50 else "_OTHER"  # noqa: PLR2004 more levels than anybody defines
            counts[level] = counts.get(level, 0) + 1

    def reset(self) -> None:
        """Start at zero: in a forked child."""
        self._lock = threading.RLock()
        self._counts, self._skipped = {}, 0

    def collect(self) -> Iterable[Family]:
        """Return the counter."""
        points = [Point({"level": level.lower()}, number) for level, number in list(self._counts.items())]
        yield Family("insitu.log_records", "counter", points, help="Log records captured, by level.")
        text = "Log records that were counted and went no further, to stay within the budget."
        yield Family("insitu.skipped_log_records", "counter", [Point({}, self._skipped)], help=text)


logs = Logs()


_SEVERITIES: Final = {level: severity(level) for level in (10, 20, 30, 40, 50)}


class Log:
    """`insitu.log`: a structured logger.

    Fields are keywords; nothing is printed unless `console` or `log_output` asks for it.
    """

    __slots__ = ("_logs", "_name")

    def __init__(self, owner: Logs = logs, name: str = "app") -> None:
        self._logs = owner
        self._name = name

    def named(self, name: str) -> Log:
        """Return a logger of another name."""
        return Log(self._logs, values.text(name, _SMALL))

    def debug(self, message: str, /, **fields: Any) -> None:
        """Log at DEBUG."""
        self._log(DEBUG, "DEBUG", message, fields, None)

    def info(self, message: str, /, **fields: Any) -> None:
        """Log at INFO."""
        self._log(INFO, "INFO", message, fields, None)

    def warning(self, message: str, /, **fields: Any) -> None:
        """Log at WARNING."""
        self._log(WARN, "WARNING", message, fields, None)

    def error(self, message: str, /, **fields: Any) -> None:
        """Log at ERROR."""
        self._log(ERROR, "ERROR", message, fields, None)

    def critical(self, message: str, /, **fields: Any) -> None:
        """Log at CRITICAL."""
        self._log(FATAL, "CRITICAL", message, fields, None)

    def exception(self, message: str, /, **fields: Any) -> None:
        """Log at ERROR with the exception being handled."""
        self._log(ERROR, "ERROR", message, fields, sys.exception())

    def _log(self, number: int, level: str, message: str, fields: dict[str, Any], error: BaseException | None) -> None:
        pipeline = self._logs.pipeline
        if pipeline is None:
            return
        current = context.current()
        if current.get(context.SUPPRESS_KEY):
            return
        began = pipeline.clock.monotonic() if next(_turns) else 0
        if type(message) is not str or len(message) > BODY:
            message = values.text(message, BODY)
        weight = LOG_BYTES + len(message) + FIELD_BYTES * len(fields)
        for value in fields.values():
            kind = type(value)
            if kind is not int and kind is not float and (kind is not str or len(value) > _SMALL):
                fields = guard.call("log.fields", _plain, fields, default={})
                weight += values.weight(fields)
                break
        made = LogRecord(pipeline.clock.wall(), number, level, self._name, message, fields)
        self._logs.send(made, current.get(context.SPAN_KEY), error, weight)
        if began:
            pipeline.meter.hot(pipeline.clock.monotonic() - began)


def _plain(fields: dict[str, Any]) -> Attributes:
    return {
        values.text(key, _SMALL): values.plain(value)
        for key, value in list(fields.items())[:FIELDS]
        if value is not None
    }


log = Log()
"""The structured logger of the public face."""


class LoggerProvider(api.LoggerProvider):
    """OpenTelemetry's provider of loggers."""

    def __init__(self, owner: Logs = logs) -> None:
        self._logs = owner

    def get_logger(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Logger:
        """Return a logger for an instrumentation scope."""
        return Logger(self._logs, values.text("" if name is None else name, _SMALL), version, schema_url, attributes)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the pipeline."""
        return self._logs.pipeline.flush(timeout_millis / 1000) if self._logs.pipeline is not None else True


class Logger(api.Logger):
    """OpenTelemetry's Logger."""

    def __init__(
        self, owner: Logs, name: str, version: str | None, schema_url: str | None, attributes: Mapping[str, Any] | None
    ) -> None:
        super().__init__(name, version, schema_url, attributes)
        self._logs = owner

    def enabled(self, **_: Any) -> bool:
        """Whether somebody listens."""
        return self._logs.pipeline is not None

    def emit(self, record: api.LogRecord | None = None, **fields: Any) -> None:
        """Take a record, or the fields of one."""
        guard.call("logger.emit", self._emit, record, fields)

    def _emit(self, record: api.LogRecord | None, fields: dict[str, Any]) -> None:
        pipeline = self._logs.pipeline
        if pipeline is None:
            return
        if record is None:
            record = api.LogRecord(**fields)
        number = record.severity_number
        plain = values.plain(record.attributes) if record.attributes else {}
        made = LogRecord(
            record.timestamp or record.observed_timestamp or pipeline.clock.wall(),
            number.value if number is not None else 0,
            values.text(record.severity_text or (number.name if number is not None else ""), _SMALL),
            self._name,
            values.plain(record.body) if record.body is not None else "",
            plain if isinstance(plain, dict) else {},
            event_name=values.text(record.event_name or "", _SMALL),
        )
        current = record.context if record.context is not None else context.current()
        weight = LOG_BYTES + values.weight(made.body) + values.weight(made.attributes)
        self._logs.send(made, current.get(context.SPAN_KEY), record.exception, weight)
