"""The command line: `insitu run`, `insitu doctor`, `insitu serve`, `insitu options`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from insitu import config, coverage, doctor
from insitu.adapters import libraries
from insitu.core.clock import SYSTEM
from insitu.core.redact import Redactor
from insitu.core.secrets import REPLACEMENT
from insitu.store.folder import services
from insitu.store.neighbours import Neighbours
from insitu.store.reader import Reader
from insitu.web.api import Api
from insitu.web.monitoring import HOME, Monitoring
from insitu.web.pages import Pages
from insitu.web.server import bound

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from insitu.doctor import Cost
    from insitu.findings import Finding

ABOUT: Final = """\
insitu measures a Python application from inside its process: requests, traces, metrics,
logs, errors and the state of the process. One line in the application starts it:

    import insitu
    insitu.instrument(app)         # FastAPI, Starlette, Flask, any ASGI or WSGI application

or none at all: `insitu run uvicorn shop:app`.

Then /metrics on the application itself is what Prometheus scrapes, and with
OTEL_EXPORTER_OTLP_ENDPOINT set everything goes to an OTLP receiver as well.
"""
MORE: Final = """\
where options come from:
    an argument of insitu.init(), else INSITU_<NAME>, else OpenTelemetry's own variable,
    else [tool.insitu] in pyproject.toml or insitu.toml, else the default.
    INSITU_DISABLED=1 or OTEL_SDK_DISABLED=true switch everything off.

try:
    insitu run uvicorn shop:app    measure an application whose code does not mention insitu
    insitu doctor shop:app         is everything measured? what is done twice? what does it cost?
    insitu options                 what is set, and by whom
    insitu serve --store .insitu   what was kept, with no application running
    INSITU_EXPORTERS=console uvicorn shop:app
                                   see requests, spans and errors on this terminal
"""
RUN: Final = """\
Start a command with insitu in every Python process of it: applications of FastAPI, Starlette,
Flask, Django, and what else uvicorn or gunicorn serve, are instrumented, and so are libraries.

    insitu run uvicorn shop:app --workers 4
    insitu run --service shop gunicorn shop:app
    insitu run python manage.py runserver
    insitu run celery -A jobs worker
    insitu run python nightly.py

What the application says itself, as in insitu.init(service="shop"), holds.
"""
_COLOURS: Final = {"ok": "32", "note": "33", "problem": "31", "bold": "1", "dim": "2"}
_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127
"""As shells have it (POSIX, 2.8.2)."""
AUTOSTART: Final = Path(__file__).parent / "autostart"
_WIDTH: Final = 100
_MARGIN: Final = 11


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 1 where doctor found a problem, 2 for a wrong command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no µ gets a question mark
    given = _parser().parse_args(arguments)
    status: int = given.run(given)
    return status


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("insitu", description=ABOUT, epilog=MORE, formatter_class=shape)
    parser.add_argument("--version", action="version", version=f"insitu {doctor.version_of('insitu') or 'unknown'}")
    parser.set_defaults(run=lambda _: _help(parser))
    commands = parser.add_subparsers(title="commands", metavar="")

    run = commands.add_parser(
        "run",
        help="start a command with insitu in it, without a change to its code",
        usage="insitu run [--OPTION VALUE ...] COMMAND [ARGUMENT ...]",
        description=RUN,
        formatter_class=shape,
    )
    for setting in config.SETTINGS:
        flag = f"--{setting.name.replace('_', '-')}"
        run.add_argument(flag, dest=setting.variables[0], metavar="VALUE", help=setting.meaning.replace("%", "%%"))
    run.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    run.set_defaults(run=_run)

    doctors = commands.add_parser(
        "doctor",
        help="what is measured, what is not and why, what is done twice, what it costs",
        description="Import an application as uvicorn does and say what insitu sees of it. Exits 1 for a problem.",
    )
    doctors.add_argument("application", nargs="?", default="", metavar="module:app", help="without: the environment")
    doctors.add_argument("--check", action="store_true", help="try the exporters' addresses (1 s each)")
    doctors.add_argument("--json", action="store_true", help="for machines")
    doctors.set_defaults(run=_doctor)

    serve = commands.add_parser(
        "serve",
        help="look at a store with no application running",
        description="Answer /monitoring/... from a store, to this machine only, until Ctrl-C.",
    )
    serve.add_argument("--store", default=".insitu", metavar="DIR", help="the folder (default: .insitu)")
    serve.add_argument("--service", default="", metavar="NAME", help="which, where the store has several")
    serve.add_argument("--port", type=int, default=8765, metavar="N", help="where to listen; 0 takes a free port")
    serve.set_defaults(run=_serve)

    options = commands.add_parser("options", help="every option, its variables, its value and who set it")
    options.add_argument("--markdown", action="store_true", help="the page of the documentation")
    options.set_defaults(run=_options)
    return parser


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


class _Paper:
    """Prints, in colour on a terminal unless NO_COLOR is set (https://no-color.org)."""

    def __init__(self, stream: TextIO) -> None:
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._coloured = stream.isatty() and not plain

    def paint(self, colour: str, text: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._coloured else text

    def paragraph(self, colour: str, label: str, text: str) -> None:
        first, *rest = textwrap.wrap(text, _WIDTH - _MARGIN, break_long_words=False, break_on_hyphens=False) or [""]
        print(f"  {self.paint(colour, f'{label:<{_MARGIN - 2}}')}{first}")
        for line in rest:
            print(" " * _MARGIN + line)


# --- run
# ---------------------------------------------------------------------------------------------------------------------


def _run(given: argparse.Namespace) -> int:
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        print("insitu: run what? As in: insitu run uvicorn shop:app", file=sys.stderr)
        return 2
    chosen = {name: value for name, value in vars(given).items() if name.startswith("INSITU_") and value is not None}
    environ = {**os.environ, **chosen, "PYTHONPATH": _in_front(os.environ.get("PYTHONPATH", ""))}
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606 no shell is wanted: it is what the user gave
    except FileNotFoundError:
        hint = f"; a script is started by: insitu run python {command[0]}" * command[0].endswith(".py")
        print(f"insitu: there is no command {command[0]} here{hint}", file=sys.stderr)
        return _NOT_FOUND
    except OSError as error:
        print(f"insitu: {command[0]} cannot be started ({error})", file=sys.stderr)
        return _NOT_EXECUTABLE


def _in_front(path: str) -> str:
    """Return PYTHONPATH with the folder whose `sitecustomize` starts insitu; an entry of it that is empty means `.`."""
    return f"{AUTOSTART}{os.pathsep}{path}" if path else str(AUTOSTART)


# --- doctor
# ------------------------------------------------------------------------------------------------------------------


def _doctor(given: argparse.Namespace) -> int:
    findings = list(doctor.examine(given.application, os.environ, check=given.check))
    measured = doctor.cost()
    problems = sum(finding.level == "problem" for finding in findings)
    if given.json:
        report: dict[str, Any] = {
            "application": given.application,
            "problems": problems,
            "findings": [finding._asdict() for finding in findings],
            "coverage": _coverage(),
            "cost": {
                "microseconds_a_request": measured.request,
                "microseconds_a_span": measured.span,
                "microseconds_a_statement": measured.statement,
            },
        }
        print(json.dumps(report, indent=2))
    else:
        _report(findings, measured, problems)
    return 1 if problems else 0


def _coverage() -> dict[str, Any]:
    listed = coverage.covered(libraries.found)
    seen = {library.name: library.by for library in listed if library.covered}
    unseen = [library.name for library in listed if not library.covered]
    return {"percent": round(100 * coverage.share(listed), 1), "covered": seen, "not_covered": unseen}


def _report(findings: Iterable[Finding], measured: Cost, problems: int) -> None:
    paper = _Paper(sys.stdout)
    notes, before = 0, ""
    for finding in findings:
        if finding.section != before:
            before = finding.section
            print(f"\n{paper.paint('bold', before)}")
        paper.paragraph(finding.level, finding.level, finding.text)
        if finding.fix:
            paper.paragraph("dim", "", f"→ {finding.fix}")
        notes += finding.level == "note"
    print(f"\n{paper.paint('bold', 'cost')}")
    figures = (
        f"{measured.request:.1f} µs a request, {measured.span:.1f} µs a span with three attributes,"
        f" {measured.statement:.1f} µs a statement to a database or a call by HTTP"
    )
    paper.paragraph(
        "ok", "now", f"{figures}: CPU of the whole process, measured here on an application that does nothing"
    )
    paper.paragraph("dim", "", "in a running process: insitu_cpu_seconds_total on /metrics")
    counted = f"{problems} problem{'s' * (problems != 1)}, {notes} note{'s' * (notes != 1)}"
    print(f"\n{paper.paint('problem' if problems else 'ok', counted)}")


# --- serve
# -------------------------------------------------------------------------------------------------------------------


def _serve(given: argparse.Namespace) -> int:
    found = services(Path(given.store))
    name = given.service or (found[0] if len(found) == 1 else "")
    if name not in found:
        told = (
            f"it has {', '.join(found)}: choose one by --service"
            if found
            else "nothing that you may read is stored there"
        )
        print(f"insitu: {given.store}: {told}", file=sys.stderr)
        return 2
    store = Path(given.store).absolute()
    reader = Reader(store / name, lambda: None)
    neighbours = Neighbours(name, reader, store)
    try:
        monitoring = Monitoring(reader, SYSTEM.wall, pages=Pages(), about={"service.name": name}, neighbours=neighbours)
        server = bound(Api({}, None, monitoring), "127.0.0.1", given.port)
    except (OSError, OverflowError) as error:
        print(f"insitu: port {given.port} cannot be used ({error}); --port 0 takes a free one", file=sys.stderr)
        return 2
    with server:
        host, port = server.server_address[:2]
        print(f"http://{host!s}:{port}{HOME}/", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


# --- options
# -----------------------------------------------------------------------------------------------------------------


def _options(given: argparse.Namespace) -> int:
    if given.markdown:
        print(markdown(), end="")
        return 0
    paper = _Paper(sys.stdout)
    for setting, value, source in config.values_of({}, os.environ, Path.cwd()):
        print(f"{paper.paint('bold', f'{setting.name:<18}')}{_shown(setting, value):<34}{paper.paint('dim', source)}")
        print(f"{'':<18}{setting.meaning}")
        print(f"{'':<18}{paper.paint('dim', ', '.join(setting.variables))}\n")
    if name := config.disabled_by(os.environ):
        print(paper.paint("problem", f"{name} switches everything off"))
    return 0


def _shown(setting: config.Setting, value: Any) -> str:
    """Return a value for people, without secrets."""
    if setting.name == "token" and value:
        return REPLACEMENT
    if value is None:
        return "by what is set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        value = [f"{key}={item}" for key, item in Redactor().attributes(value).items()]
    return ", ".join(value) or "none" if isinstance(value, tuple | list) else Redactor().text(str(value)) or "none"


PAGE: Final = """\
# Options

Written by `insitu options --markdown`. Each option is an argument of `insitu.init`, a variable `INSITU_<NAME>`, and a
key of `[tool.insitu]` in pyproject.toml or of insitu.toml; OpenTelemetry's variables are honoured where they exist. An
argument wins over `INSITU_*`, that over `OTEL_*`, that over the file, that over the default. A bad value warns, names
the fix, and falls back to the next source. A variable that is empty counts as not set. Lists have commas between their
names; `none` is the empty list.

{switches} switches everything off, whatever else is said.

| option | is | default | OpenTelemetry's variables |
|---|---|---|---|
"""


def markdown() -> str:
    """Return docs/options.md: `insitu options --markdown > docs/options.md`."""
    rows = [
        (f"`{each.name}`", each.meaning, _shown(each, each.default), ", ".join(f"`{name}`" for name in each.otel))
        for each in config.SETTINGS
    ]
    switches = " or ".join(f"`{name}`" for name in config.SWITCHES)
    return PAGE.format(switches=switches) + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
