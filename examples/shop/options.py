"""What the command line asks for."""

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

DESCRIPTION = """\
A shop measured by insitu: FastAPI on uvicorn, SQLAlchemy on SQLite, a second service, a background
job, some slow and some failing requests, and customers who never stop. It runs until Ctrl-C (or for
--seconds) and ends with a table of what insitu saw and what that cost."""

EPILOG = """\
examples:
  python -m examples.shop --seconds 10
  python -m examples.shop --rate 150 --port 8000 --logs
  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 python -m examples.shop

Colours are left out where output is no terminal, and under NO_COLOR."""

SECONDS = "how long customers come (default: INSITU_DEMO_SECONDS, else until Ctrl-C)"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for. `seconds` is None where only Ctrl-C ends the run."""

    seconds: float | None
    rate: float
    port: float
    logs: bool


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line, with INSITU_DEMO_SECONDS for a `--seconds` that is not given."""
    parser = argparse.ArgumentParser(
        "python -m examples.shop",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    limit = os.environ.get("INSITU_DEMO_SECONDS") or None
    add = parser.add_argument
    add("--seconds", type=_between(0.1, 1e7), metavar="N", default=limit, help=SECONDS)
    add("--rate", type=_between(1, 500), metavar="R", default=100.0, help="requests a second (default: 100)")
    add("--port", type=_between(0, 65535), metavar="P", default=0, help="of the shop (default: a free one)")
    add("--logs", action="store_true", help="show what the services log")
    return Options(**vars(parser.parse_args(arguments)))


def _between(least: float, most: float) -> Callable[[str], float]:
    """Return a reader of numbers that are not below the one and not above the other."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least:g} to {most:g}")
        return value

    return number
