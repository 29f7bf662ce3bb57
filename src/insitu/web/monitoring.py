"""`/monitoring/...`: what the store knows, as JSON, with the OpenAPI document that describes it, and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from insitu.analysis import topology
from insitu.core.questions import Period
from insitu.web import parameters
from insitu.web.messages import Response, document, problem
from insitu.web.overview import overview
from insitu.web.parameters import BadParameter, Parameter
from insitu.web.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from insitu.core.questions import Answer, Neighbours, Reader
    from insitu.core.records import Family
    from insitu.web.messages import Request
    from insitu.web.pages import Pages

HOME: Final = "/monitoring"
_ASSETS: Final = "assets/"
_QUARTER: Final = 900 * 10**9


class Endpoint(NamedTuple):
    """One path below the page's; `{...}` stands for what comes behind."""

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
        pages: serves the page's files.
        about: attributes of the service, as OpenTelemetry's resource names them.
        neighbours: know the services that share the store.
        live: returns every metric of this process as it is now; None where no application runs.
        home: the page's path.

    Attributes:
        prefix: how every other path of ours begins.

    """

    def __init__(
        self,
        reader: Reader,
        now: Callable[[], int],
        *,
        pages: Pages,
        about: Mapping[str, Any],
        neighbours: Neighbours,
        live: Callable[[], Iterable[Family]] | None = None,
        home: str = HOME,
    ) -> None:
        self._neighbours = neighbours
        self._reader = reader
        self._now = now
        self._pages = pages
        self._about = about
        self._live = live
        self._streams = Streams(now)
        self.home, self.prefix = home, f"{home}/"
        self.endpoints = (
            Endpoint("overview", "The service, how it is now, and what insitu costs it.", (), self._overview),
            Endpoint(
                "routes",
                "Rate, errors and durations of each route; of the last 15 minutes.",
                parameters.ROUTES,
                self._routes,
            ),
            Endpoint(
                "services",
                "The services that share the store, with their requests; of the last 15 minutes.",
                parameters.PERIOD,
                self._services,
            ),
            Endpoint(
                "dependencies",
                "Who calls whom: services, databases and other hosts; of the last 15 minutes.",
                parameters.PERIOD,
                self._dependencies,
            ),
            Endpoint("traces", "Kept traces, the newest first.", parameters.TRACES, self._traces),
            Endpoint(
                "traces/{trace_id}",
                "A trace with its spans and log records, of every service that shares the store.",
                (),
                self._trace,
            ),
            Endpoint("logs", "Log records, the newest first.", parameters.LOGS, self._logs),
            Endpoint(
                "logs/streams",
                "Log records as they come: server-sent events for five seconds, then ask again.",
                parameters.NEW_LOGS,
                self._new_logs,
            ),
            Endpoint("metrics", "Every metric, with its unit and meaning.", (), self._metrics),
            Endpoint("metrics/{name}", "A metric's series; of the last 15 minutes.", parameters.METRIC, self._metric),
            Endpoint("openapi.json", "This document.", (), self._openapi),
        )

    def answer(self, request: Request) -> Response:
        """Answer a GET of the page or of a path below it."""
        if request.path == self.home:
            # Relative, since a proxy may have put more before the path; the page's own addresses are as well.
            return Response(307, b"", headers={"location": f"{self.home.rpartition('/')[2]}/"})
        name = request.path.removeprefix(self.prefix)
        if not name or name.startswith(_ASSETS):
            return self._pages.answer(name.removeprefix(_ASSETS), request.headers.get("if-none-match", ""))
        return self._found(name, request)

    def _found(self, name: str, request: Request) -> Response:
        endpoint, rest = self._endpoint(name)
        if endpoint is None:
            listed = ", ".join(self.prefix + each.path for each in self.endpoints)
            return problem(404, f"there is no {name[:200]}; there are {listed}")
        now = self._now()
        try:
            asked = parameters.read(request.query, endpoint.parameters, now)
            found = endpoint.answer({"request": request, "now": now, **asked}, rest)
            return found if isinstance(found, Response) else document(found)
        except BadParameter as error:
            return problem(400, str(error))
        except Missing as error:
            return problem(404, str(error))

    def _endpoint(self, name: str) -> tuple[Endpoint | None, str]:
        head, slash, rest = name.partition("/")
        found = (each for each in self.endpoints if each.path.partition("{")[0] in (name, head + slash))
        return next(found, None), rest

    def _overview(self, given: Mapping[str, Any], _: str) -> Any:
        told = overview(self._about, given["now"], self._live() if self._live is not None else None)
        return {**told, "streams": given["request"].streams}

    @staticmethod
    def _span(given: Mapping[str, Any]) -> tuple[int, int]:
        until = given.get("until", given["now"])
        since = given.get("since", until - _QUARTER)
        if since >= until:
            raise BadParameter("since: give a moment before `until`")
        return since, until

    def _routes(self, given: Mapping[str, Any], _: str) -> Any:
        return self._reader.routes(*self._span(given), given.get("name", ""))

    def _services(self, given: Mapping[str, Any], _: str) -> Any:
        since, until = self._span(given)
        return {"since": since, "until": until, "services": topology.services(self._neighbours.facts(since, until))}

    def _dependencies(self, given: Mapping[str, Any], _: str) -> Any:
        since, until = self._span(given)
        return {"since": since, "until": until, **topology.dependencies(self._neighbours.facts(since, until))}

    def _metrics(self, _: Mapping[str, Any], __: str) -> Any:
        return {"metrics": self._reader.metrics()}

    def _metric(self, given: Mapping[str, Any], named: str) -> Any:
        found = self._reader.metric(unquote(named), *self._span(given))
        if found is None:
            raise Missing(f"no metric {named[:200]} is kept here; /metrics lists those that are")
        return found

    def _traces(self, given: Mapping[str, Any], _: str) -> Any:
        return _shown("traces", self._reader.traces(parameters.trace_search(given), parameters.period(given)))

    def _logs(self, given: Mapping[str, Any], _: str) -> Any:
        return _shown("logs", self._reader.logs(parameters.log_search(given), parameters.period(given)))

    def _new_logs(self, given: Mapping[str, Any], _: str) -> Response:
        search = parameters.log_search(given)
        return self._streams.opened("logs", lambda since: self._reader.logs(search, Period(since)), given["request"])

    def _trace(self, _: Mapping[str, Any], named: str) -> Any:
        try:
            trace_id = parameters.trace_id(named)
        except ValueError as error:
            raise BadParameter(str(error)) from error
        found = self._neighbours.trace(trace_id)
        if found is None:
            raise Missing(f"no trace {trace_id} is kept here")
        return found

    def _openapi(self, _: Mapping[str, Any], __: str) -> Any:
        return {
            "openapi": "3.1.0",
            "info": {"title": "insitu", "version": "1", "description": "What insitu has kept of this application."},
            "paths": {self.prefix + each.path: {"get": _operation(each)} for each in self.endpoints},
        }


def _shown(name: str, answer: Answer) -> dict[str, Any]:
    """Return an answer for the wire; a cursor is a text, because JavaScript's numbers are shorter."""
    cursor = str(answer.cursor) if answer.cursor is not None else None
    progress = {"looked": answer.looked, "blocks": answer.blocks}
    return {name: answer.found, "cursor": cursor, "partial": cursor is not None, "progress": progress}


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
        named = endpoint.path.partition("{")[2].strip("}")
        asked.append({"name": named, "in": "path", "required": True, "schema": {"type": "string"}})
    answers = {"200": "what was found", "400": "a parameter is wrong", "401": "not from here", "404": "not here"}
    return {
        "summary": endpoint.summary,
        "operationId": endpoint.path.replace("/", "_").strip("{}").replace("{", "").replace(".", "_"),
        "parameters": asked,
        "responses": {status: {"description": meaning} for status, meaning in answers.items()},
    }
