"""Contenders in processes of their own, measured in alternating rounds; the smallest round of each counts.

Alternation, because a machine that others share is now fast and now slow, and both sides must see the same weather.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ("INSITU_", "OTEL_", "DD_", "SENTRY_", "ELASTIC_", "LOGFIRE_", "FASTAPI_", "PROMETHEUS_")
"""Variables of these prefixes would make a contender something else than its defaults."""


class Failed(Exception):
    """A contender could not be prepared, or a round of it failed."""


class Plan(NamedTuple):
    """How much to measure.

    Attributes:
        processes: how often each contender is started anew: where its memory happens to lie is worth some percent.
        rounds: least alternated rounds of each process.
        effort: size of a round; 1.0 is a full one.
        seconds: more rounds follow until so long: where threads work together, few short ones hit a quiet moment.

    """

    processes: int = 3
    rounds: int = 5
    effort: float = 1.0
    seconds: float = 0.0


FULL = Plan(seconds=10.0)
ONCE = Plan(processes=1, rounds=1)
QUICK = Plan(processes=1, rounds=2, effort=0.02)


class Contender:
    """One contender, alive until `close`."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        self.name = name
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed by close(); a pipe that nobody reads would block
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contender", name],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            process_group=0,  # as from a shell: a service of its own, not a worker among the other contenders
        )

    def ready(self) -> None:
        """Wait until it is prepared; Failed when it cannot be."""
        self._answer()

    def round(self, effort: float) -> dict[str, float]:
        """Run one round and return its figures by full name: `spans:insitu.caller`, or `logs:insitu` if it has one."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{effort}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise Failed(f"{self.name}: ended") from error
        return {f"{self.name}.{key}".rstrip("."): value for key, value in self._answer()["figures"].items()}

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._complaints.seek(0)
        return (self._complaints.read().strip().splitlines() or [f"ended with {status}"])[-1]

    def close(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.communicate()
        finally:
            self._complaints.close()


def environment() -> dict[str, str]:
    """Return the environment of a contender: ours, without what would change its defaults."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # an import that compiles each time is nobody's
    return {**kept, "PYTHONHASHSEED": "0"}  # one layout of every dict, in every run


def measure(names: Sequence[str], plan: Plan) -> tuple[dict[str, float], dict[str, str]]:
    """Return each contender's smallest figures in alternating rounds, and why others have none."""
    figures: dict[str, float] = {}
    failures: dict[str, str] = {}
    for generation in range(plan.processes):
        progress(f"  processes {generation + 1} of {plan.processes}: {len(names)} contenders", end="\r")
        _alternate([name for name in names if name not in failures], plan, figures, failures)
    return {name: value for name, value in figures.items() if name.partition(".")[0] not in failures}, failures


def _alternate(names: Sequence[str], plan: Plan, figures: dict[str, float], failures: dict[str, str]) -> None:
    """Start the contenders and measure them in turns, as the plan says; what fails once takes no further turn."""
    environ = environment()
    alive = [Contender(name, environ) for name in names]
    started = list(alive)
    try:
        alive = [each for each in alive if _works(each, each.ready, failures)]
        if plan.rounds > 1:  # a contender that is measured once brings no caches to warm
            alive = [each for each in alive if _works(each, partial(each.round, plan.effort / 5), failures)]
        begun = time.monotonic()
        turns = 0
        while alive and (turns < plan.rounds or time.monotonic() - begun < plan.seconds):
            turns += 1
            alive = [each for each in alive if _works(each, partial(_turn, each, plan.effort, figures), failures)]
    finally:
        for each in started:
            each.close()


def _works(contender: Contender, call: Callable[[], object], failures: dict[str, str]) -> bool:
    try:
        call()
    except Failed as failure:
        failures[contender.name] = str(failure)
        return False
    return True


def _turn(contender: Contender, effort: float, figures: dict[str, float]) -> None:
    """Keep the smallest figures of all rounds; with one that bears the contender's own name goes its whole round."""
    found = contender.round(effort)
    lead = found.get(contender.name)
    if lead is None:
        figures.update({name: min(value, figures.get(name, value)) for name, value in found.items()})
    elif lead <= figures.get(contender.name, lead):
        figures.update(found)


def contenders_of(figures: Iterable[str]) -> list[str]:
    """Return the contenders that give these figures, each once, in order."""
    return list(dict.fromkeys(figure.partition(".")[0] for figure in figures))


def progress(text: str, end: str = "\n") -> None:
    """Tell a person who waits; the table alone goes to stdout."""
    print(f"\r{text:<100}", end=end if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
