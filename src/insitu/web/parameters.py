"""What stands behind the `?` of our own paths, as questions; one table serves the parser and the OpenAPI document."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from insitu.core.questions import FOREVER, LIMIT, LogSearch, Period, TraceSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MOST: Final = 1_000
LEVELS: Final = {"trace": 1, "debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
"""Names of severities and the least number of each (OpenTelemetry, "Severity Fields")."""
_AGO: Final = re.compile(r"(\d{1,9})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{32}")
_MOST_PARAMETERS: Final = 50
_LATEST_SECOND: Final = FOREVER // 10**9


class BadParameter(ValueError):
    """Says which parameter, and what would be right."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One name behind the `?`.

    Attributes:
        name, meaning: for people and the OpenAPI document.
        read: makes the value, given the text and the time; raises ValueError with what would be right.
        kind: JSON schema's type.
        choices: the values there are; empty where any may come.

    """

    name: str
    meaning: str
    read: Callable[[str, int], Any]
    kind: str = "string"
    choices: tuple[str, ...] = ()


def _moment(text: str, now: int) -> int:
    """Read seconds since 1970, a time as RFC 3339 has it, or how long ago: `15m`."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - int(ago[1]) * _UNITS[ago[2]] * 10**9
        if re.fullmatch(r"\d{1,10}(\.\d{1,9})?", text):
            whole, _, fraction = text.partition(".")
            return min(int(whole), _LATEST_SECOND) * 10**9 + int(fraction.ljust(9, "0") or 0)
        parsed = datetime.fromisoformat(text)
        return round((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1e6) * 1_000
    except (ValueError, OverflowError) as error:
        raise ValueError("give 15m (ago), seconds since 1970, or 2026-01-31T12:00:00Z") from error


def _milliseconds(text: str, _: int) -> int:
    if not re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text):
        raise ValueError("give milliseconds: 250")
    return round(float(text) * 1e6)


def _whole(most: int) -> Callable[[str, int], int]:
    def read(text: str, _: int) -> int:
        if not re.fullmatch(r"\d{1,19}", text) or not 1 <= int(text) <= most:
            raise ValueError(f"give a whole number from 1 to {most}")
        return int(text)

    return read


def _flag(text: str, _: int) -> bool:
    if text not in ("true", "false"):
        raise ValueError("give true or false")
    return text == "true"


def _text(text: str, _: int) -> str:
    return text


def _level(text: str, _: int) -> int:
    if text.lower() not in LEVELS:
        raise ValueError(f"give one of {', '.join(LEVELS)}")
    return LEVELS[text.lower()]


def trace_id(text: str, _: int = 0) -> str:
    """Return a trace id in lower case; ValueError."""
    if not _TRACE_ID.fullmatch(text):
        raise ValueError("give the 32 hexadecimal digits of a trace id")
    return text.lower()


_PERIOD: Final = (
    Parameter("since", "what began then or later: 15m (ago), seconds since 1970, or RFC 3339", _moment),
    Parameter("until", "what began then or earlier", _moment),
    Parameter("limit", f"about how many answers, at most {MOST}", _whole(MOST), "integer"),
    Parameter("cursor", "goes on where the answer before has ended", _whole(FOREVER)),
)
TRACES: Final = (
    Parameter("name", "of the root: GET /items/{id}", _text),
    Parameter("outcome", "a status code, or how it begins: 5", _text),
    Parameter("min_ms", "took so many milliseconds or more", _milliseconds, "number"),
    Parameter("max_ms", "took so many milliseconds or less", _milliseconds, "number"),
    Parameter("failed", "with an error, or without one", _flag, "boolean"),
    Parameter("reason", "why it is kept", _text, choices=("error", "flagged", "first", "slow", "steady")),
    Parameter("key", "an attribute of any span", _text),
    Parameter("value", "its value, or that of any attribute", _text),
    *_PERIOD,
)
PERIOD: Final = _PERIOD[:2]
ROUTES: Final = (Parameter("name", "of one route alone, then with its durations over time", _text), *_PERIOD[:2])
METRIC: Final = PERIOD
NEW_LOGS: Final = (
    Parameter("level", "this level or a higher one", _level, choices=tuple(LEVELS)),
    Parameter("logger", "its whole name", _text),
    Parameter("text", "stands anywhere in the record, in any case", _text),
    Parameter("trace_id", "belongs to this trace", trace_id),
)
LOGS: Final = (*NEW_LOGS, *_PERIOD)


def read(query: str, known: Sequence[Parameter], now: int) -> dict[str, Any]:
    """Return the values by name.

    Args:
        query: as it came, percent-encoded.
        known: the parameters of this path.
        now: wall nanoseconds.

    Raises:
        BadParameter: one is unknown, stands twice, or has a value that it cannot have.

    """
    names: Mapping[str, Parameter] = {each.name: each for each in known}
    found: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError as error:
        raise BadParameter("too many parameters") from error
    for name, text in pairs:
        parameter = names.get(name)
        if parameter is None:
            raise BadParameter(f"there is no parameter {name[:100]!r}; there are {', '.join(names)}")
        if name in found:
            raise BadParameter(f"{name} stands twice")
        if not text:
            continue
        try:
            found[name] = parameter.read(text, now)
        except ValueError as error:
            raise BadParameter(f"{name}={text[:100]!r}: {error}") from error
        if parameter.choices and text.lower() not in parameter.choices:
            raise BadParameter(f"{name}={text[:100]!r}: give one of {', '.join(parameter.choices)}")
    return found


def trace_search(given: Mapping[str, Any]) -> TraceSearch:
    """Return which traces are meant."""
    return TraceSearch(
        name=given.get("name", ""),
        outcome=given.get("outcome", ""),
        least=given.get("min_ms", 0),
        most=given.get("max_ms", FOREVER),
        failed=given.get("failed"),
        reason=given.get("reason", ""),
        key=given.get("key", ""),
        value=given.get("value", ""),
    )


def log_search(given: Mapping[str, Any]) -> LogSearch:
    """Return which log records are meant."""
    return LogSearch(
        severity=given.get("level", 0),
        logger=given.get("logger", ""),
        text=given.get("text", ""),
        trace_id=given.get("trace_id", ""),
    )


def period(given: Mapping[str, Any]) -> Period:
    """Return the time that is meant, and how much is wanted."""
    return Period(
        since=given.get("since", 0),
        until=given.get("until", FOREVER),
        limit=given.get("limit", LIMIT),
        cursor=given.get("cursor"),
    )
