"""What the pieces expect of each other: one callable or Protocol is the whole extension point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from insitu.core.records import Family, Record, Resource, Signal


class Part(NamedTuple):
    """A piece of a batch, made on the worker and sent later.

    Attributes:
        signal: what it holds.
        items: how many spans, log records or points; this is what a loss is counted in.
        weight: bytes that it holds while it waits.
        data: whatever the exporter's `send` understands; for wire formats the encoded bytes.

    """

    signal: Signal
    items: int
    weight: int
    data: Any


class Delivery(NamedTuple):
    """What became of a batch.

    Attributes:
        sent: items that the back-end took.
        dropped: items lost.
        reason: why, in one or two words that can be a label (`refused`, `unreachable`, `partial`, `stopped`, `error`).
        kept: items that wait on disk for a back-end.

    """

    sent: int
    dropped: int = 0
    reason: str = ""
    kept: int = 0


@dataclass(slots=True)
class Left:
    """A request that no back-end took in time.

    Attributes:
        signal, items: what it holds.
        body: as it is sent; empty where it is too old to be.
        done: whether it may be removed.

    """

    signal: Signal
    items: int
    body: bytes
    done: bool = False


class Spool(Protocol):
    """Keeps requests on disk."""

    def keep(self, signal: Signal, items: int, body: bytes) -> bool:
        """Keep a request; False where there is no room for it."""

    def oldest(self) -> AbstractContextManager[Left | None]:
        """Hold the oldest request that nobody else holds."""


class ExporterContext(NamedTuple):
    """What a factory of the entry point group `insitu.exporters` is given: `create(context) -> Exporter`.

    Attributes:
        environ: the environment, as insitu's options see it.
        resource: what this process is.
        monotonic: seconds that never go back.
        wait: pauses for some seconds; True when the process is ending and the pause was cut short.
        spool: returns where an exporter of this name keeps what nobody took in time; None where nothing is on disk.

    """

    environ: Mapping[str, str]
    resource: Resource
    monotonic: Callable[[], float]
    wait: Callable[[float], bool]
    spool: Callable[[str], Spool | None] = lambda _: None


@runtime_checkable
class Exporter(Protocol):
    """Turns facts into somebody's format and delivers them.

    `encode` and `encode_metrics` run on the worker and on the exporter's sender thread respectively; `send` runs on
    the sender thread only and
    may take as long as it likes: the queue before it is capped in bytes, and what finds no room is dropped and counted.
    An exception in any of them is counted, and costs no more than the batch (in `encode`: the record) in hand.

    Attributes:
        name: as in `exporters=` and in the labels of its metrics.
        batch_items: at most this many items a `send`.
        delay: seconds between sends while there is anything to send.
        metrics_interval: seconds between collections of all metrics; None when it does not want them.

    """

    name: str
    batch_items: int
    delay: float
    metrics_interval: float | None

    def encode(self, records: Sequence[Record]) -> Iterable[Part]:
        """Return the parts of some records (already redacted)."""

    def encode_metrics(self, families: Iterable[Family]) -> Iterable[Part]:
        """Return the parts of one collection of all metrics."""

    def send(self, signal: Signal, parts: Sequence[Part], timeout: float) -> Delivery:
        """Deliver parts of one signal within `timeout` seconds."""

    def close(self) -> None:
        """Let go of connections. Called once, after the last send."""


@runtime_checkable
class Resending(Protocol):
    """An exporter that keeps what nobody took in time."""

    def resend(self, timeout: float) -> tuple[Signal, Delivery] | None:
        """Send one request that is left from before, on the sender thread; None where there is none, or no taker.

        Called after a back-end has taken something.
        """


class Collector(Protocol):
    """Says what its metrics are worth now."""

    def collect(self) -> Iterable[Family]:
        """Return families; quick, and without waiting for a network."""
