"""`/monitoring/...`: what the store knows, as JSON, and the OpenAPI document that describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from insitu.core import documents
from insitu.web import parameters
from insitu.web.parameters import BadParameter, Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from insitu.core.questions import Answer, Reader

PREFIX: Final = "/monitoring/"
_JSON: Final = "application/json"
_QUARTER: Final = 900 * 10**9


class Endpoint(NamedTuple):
    """One path below PREFIX; `{trace_id}` stands for what comes behind."""

    path: str
    summary: str
    parameters: Sequence[Parameter]
    answer: Callable[[Mapping[str, Any], str], Any]


class Missing(Exception):
    """There is nothing of this name."""


class Monitoring:
    """Answers questions about what is kept.

    Args:
        reader: knows it.
        now: wall nanoseconds.

    """

    def __init__(self, reader: Reader, now: Callable[[], int]) -> None:
        self._reader = reader
        self._now = now
        self.endpoints = (
            Endpoint(
                "routes",
                "Rate, errors and durations of each route; of the last 15 minutes.",
                parameters.ROUTES,
                self._routes,
            ),
            Endpoint("traces", "Kept traces, the newest first.", parameters.TRACES, self._traces),
            Endpoint("traces/{trace_id}", "A trace with its spans and log records.", (), self._trace),
            Endpoint("logs", "Log records, the newest first.", parameters.LOGS, self._logs),
            Endpoint("openapi.json", "This document.", (), self._openapi),
        )

    def answer(self, path: str, query: str) -> tuple[int, str, bytes]:
        """Return (status, content type, body) for a GET of a path that begins with PREFIX."""
        endpoint, rest = self._endpoint(path.removeprefix(PREFIX))
        if endpoint is None:
            listed = ", ".join(PREFIX + each.path for each in self.endpoints)
            return _problem(404, f"there is no {path[:200]}; there are {listed}")
        try:
            document = endpoint.answer(parameters.read(query, endpoint.parameters, self._now()), rest)
        except BadParameter as error:
            return _problem(400, str(error))
        except Missing as error:
            return _problem(404, str(error))
        return 200, _JSON, documents.dumps(document)

    def _endpoint(self, name: str) -> tuple[Endpoint | None, str]:
        head, slash, rest = name.partition("/")
        wanted = f"{head}/{{trace_id}}" if slash else head
        return next((each for each in self.endpoints if each.path == wanted), None), rest

    def _routes(self, given: Mapping[str, Any], _: str) -> Any:
        until = given.get("until", self._now())
        since = given.get("since", until - _QUARTER)
        if since >= until:
            raise BadParameter("since: give a moment before `until`")
        return self._reader.routes(since, until)

    def _traces(self, given: Mapping[str, Any], _: str) -> Any:
        return _shown("traces", self._reader.traces(parameters.trace_search(given), parameters.period(given)))

    def _logs(self, given: Mapping[str, Any], _: str) -> Any:
        return _shown("logs", self._reader.logs(parameters.log_search(given), parameters.period(given)))

    def _trace(self, _: Mapping[str, Any], named: str) -> Any:
        try:
            trace_id = parameters.trace_id(named)
        except ValueError as error:
            raise BadParameter(str(error)) from error
        found = self._reader.trace(trace_id)
        if found is None:
            raise Missing(f"no trace {trace_id} is kept here")
        return found

    def _openapi(self, _: Mapping[str, Any], __: str) -> Any:
        return {
            "openapi": "3.1.0",
            "info": {"title": "insitu", "version": "1", "description": "What insitu has kept of this application."},
            "paths": {PREFIX + each.path: {"get": _operation(each)} for each in self.endpoints},
        }


def _shown(name: str, answer: Answer) -> dict[str, Any]:
    """Return an answer for the wire; a cursor is a text, because JavaScript's numbers are shorter."""
    cursor = str(answer.cursor) if answer.cursor is not None else None
    progress = {"looked": answer.looked, "blocks": answer.blocks}
    return {name: answer.found, "cursor": cursor, "partial": cursor is not None, "progress": progress}


def _problem(status: int, detail: str) -> tuple[int, str, bytes]:
    """Return an error as RFC 9457 has it."""
    return status, "application/problem+json", documents.dumps({"status": status, "detail": detail})


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    asked: list[dict[str, Any]] = [
        {
            "name": each.name,
            "in": "query",
            "description": each.meaning,
            "schema": {"type": each.kind, **({"enum": list(each.choices)} if each.choices else {})},
        }
        for each in endpoint.parameters
    ]
    if "{" in endpoint.path:
        asked.append({"name": "trace_id", "in": "path", "required": True, "schema": {"type": "string"}})
    answers = {"200": "what was found", "400": "a parameter is wrong", "401": "not from here", "404": "not here"}
    return {
        "summary": endpoint.summary,
        "operationId": endpoint.path.replace("/", "_").strip("{}").replace("{", "").replace(".", "_"),
        "parameters": asked,
        "responses": {status: {"description": meaning} for status, meaning in answers.items()},
    }
