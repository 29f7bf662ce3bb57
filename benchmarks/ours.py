"""insitu as a contender: started by its public face, with every default, or with OTLP up to the point of sending.

The store is on, as it is by default, in a folder of its own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import insitu
from benchmarks import timing
from insitu import runtime
from insitu.core.ports import Delivery
from insitu.exporters import otlp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from insitu.core.ports import Part


def start(**options: Any) -> None:
    """Start with the defaults: every signal on, what matters kept and written, /metrics served, nothing sent."""
    insitu.init(service="bench", store=store(), **options)
    runtime.current()  # raises when init has swallowed an error


def start_exporting(**options: Any) -> None:
    """Start with the OTLP exporter: everything is redacted and encoded, and the sender discards it."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    otlp.Exporter.send = discard  # type: ignore[method-assign,assignment]
    start(exporters=("otlp",), **options)
    assert [sender.name for sender in runtime.current().pipeline.senders] == ["otlp"], (
        "no exporter: is insitu installed?"
    )


def store() -> str:
    """Return a folder that goes with the process."""
    folder = tempfile.mkdtemp(prefix="bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def discard(_: otlp.Exporter, signal: object, parts: Sequence[Part], timeout: float) -> Delivery:
    """Take everything and send nothing, as the baseline's exporter does."""
    del signal, timeout
    return Delivery(sum(part.items for part in parts))


def flush() -> None:
    """Do all background work now; what was lost was not measured, so a loss is an error."""
    if not insitu.flush(timeout=60):
        raise RuntimeError("insitu lost records, or could not flush in time")


def measured(work: timing.Work, operations: int) -> timing.Round:
    """Return a round that measures the process, and beside that what insitu's ledger says (`ledger`)."""
    measure = timing.whole(work, operations, flush)

    def both(effort: float) -> dict[str, float]:
        before = ledger()
        whole = measure(effort)
        return {"": whole, "ledger": (ledger() - before) * 1e6 / timing.scaled(operations, effort)}

    return both


def ledger() -> float:
    """Return the CPU seconds that insitu says it has used."""
    return sum(runtime.current().meter.seconds().values())
