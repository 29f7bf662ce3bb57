"""Delivery to one exporter.

A queue capped in bytes before it, a thread of its own behind it, and every loss counted with its reason.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from insitu.core import guard
from insitu.core.ports import Delivery, Part, Resending
from insitu.core.records import Family, Point, size
from insitu.core.threads import Background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from insitu.core.budget import Meter
    from insitu.core.clock import Clock
    from insitu.core.ports import Exporter
    from insitu.core.records import Record, Signal

QUEUE_BYTES: Final = 8 * 1024 * 1024
SEND_TIMEOUT_SECONDS: Final = 60.0
_LONGEST_SLEEP_SECONDS: Final = 60.0


class Sender:
    """Takes records on the worker, delivers them on its own thread.

    Args:
        make: returns the exporter; it is given `wait`, its way to pause between tries.
        collect: returns all metrics of this process, for exporters that want them.
        meter, clock: for the thread.
        queue_bytes: cap of what waits.

    """

    def __init__(
        self,
        make: Callable[[Callable[[float], bool]], Exporter],
        collect: Callable[[], Iterable[Family]],
        meter: Meter,
        clock: Clock,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.sent: dict[Signal, int] = {}
        self.kept: dict[Signal, int] = {}
        self.dropped: dict[tuple[Signal, str], int] = {}
        self._make = make
        self.exporter = make(self.wait)
        self.name = self.exporter.name
        self._collect = collect
        self._clock = clock
        self._cap = queue_bytes
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self.thread = Background(f"sender-{self.name}", self.step, meter, clock)
        self._empty()

    def _empty(self) -> None:
        self._held = 0
        self._waiting: dict[Signal, deque[Part]] = {}
        self._items: dict[Signal, int] = {}
        self._in_flight: list[tuple[Signal, list[Part]]] = []
        self._flushing = False
        self._metrics_asked = False
        self._reported = 0
        self._hurry = False
        self._closed = False
        self._last_metrics = self._begun = self._now()
        self._last_send: dict[Signal, float] = {}

    def _now(self) -> float:
        return self._clock.monotonic() / 1e9

    # --- on the worker ---

    def accept(self, records: Sequence[Record]) -> None:
        """Encode records and queue them. A record that cannot be encoded is lost alone."""
        parts = self._encode(records)
        if parts is None:
            parts = [part for record in records for part in self._encode_alone(record)]
        for part in parts:
            self._offer(part)

    def _encode(self, records: Sequence[Record]) -> list[Part] | None:
        parts: list[Part] | None = guard.call_in_worker(
            f"{self.name}.encode", lambda: _checked_parts(self.exporter.encode(records))
        )
        return parts

    def _encode_alone(self, record: Record) -> list[Part]:
        parts = self._encode([record])
        if parts is None:
            with self._lock:
                self._drop(*size(record), "encode")
        return parts or []

    def _offer(self, part: Part) -> None:
        signal = part.signal
        with self._lock:
            if self._closed or self._held + part.weight > self._cap:
                self._drop(signal, part.items, "shutdown" if self._closed else "queue_full")
                return
            first = not self._items.get(signal)
            self._held += part.weight
            self._waiting.setdefault(signal, deque()).append(part)
            self._items[signal] = items = self._items.get(signal, 0) + part.items
        if first or items >= self.exporter.batch_items:
            self.thread.wake()

    # --- on the sender's thread ---

    def wait(self, seconds: float) -> bool:
        """Pause between two tries, however much comes in meanwhile; True when there is no time for another."""
        until = time.monotonic() + seconds
        while not self._hurry:
            left = until - time.monotonic()
            if left <= 0:
                return False
            if self.thread.wait(left):
                break
        return True

    def step(self, until: float | None = None) -> float:
        """Send what is due; return the seconds until more can be due.

        Args:
            until: monotonic seconds when to have done, for callers that cannot wait; none on the sender's thread.

        """
        while self._send_some(until) and not self.thread.stopping:
            if until is not None and time.monotonic() > until:
                break
        with self._idle:
            if not self._busy():
                self._flushing = False
                self._idle.notify_all()
        return self._pause()

    def _send_some(self, until: float | None) -> bool:
        """Send one batch, or all metrics; False when nothing is due."""
        timeout = SEND_TIMEOUT_SECONDS if until is None else max(0.1, until - time.monotonic())
        if self._metrics_due():
            self._send_metrics(timeout)
            return True
        signal = self._due()
        if signal is not None:
            self._deliver(signal, self._take(signal), timeout)
            self._last_send[signal] = self._now()
        return signal is not None

    def _metrics_due(self) -> bool:
        interval = self.exporter.metrics_interval
        return interval is not None and (self._metrics_asked or self._now() - self._last_metrics >= interval)

    def _due(self) -> Signal | None:
        with self._lock:
            now = self._now()
            due = [
                signal
                for signal, items in self._items.items()
                if items and (self._flushing or items >= self.exporter.batch_items or now >= self._next(signal))
            ]
        return min(due, key=self._next, default=None)  # none waits for another's batches

    def _next(self, signal: Signal) -> float:
        """Return when what there is of a signal goes, however little."""
        return self._last_send.get(signal, self._begun) + self.exporter.delay

    def _pause(self) -> float:
        with self._lock:
            now = self._now()
            pause = _LONGEST_SLEEP_SECONDS
            pause = min([pause, *(self._next(signal) - now for signal, items in self._items.items() if items)])
            if self.exporter.metrics_interval is not None:
                pause = min(pause, self._last_metrics + self.exporter.metrics_interval - now)
        return max(0.01, pause)

    def _take(self, signal: Signal) -> list[Part]:
        with self._lock:
            waiting, items = self._waiting[signal], 0
            taken: list[Part] = []
            while waiting and (not taken or items + waiting[0].items <= self.exporter.batch_items):
                part = waiting.popleft()
                taken.append(part)
                items += part.items
                self._held -= part.weight
            self._items[signal] -= items
            self._in_flight.append((signal, taken))
        return taken

    def _send_metrics(self, timeout: float) -> None:
        self._metrics_asked = False
        self._last_metrics = self._now()
        where = f"{self.name}.metrics"
        families = guard.call_in_worker(where, lambda: list(self._collect()), default=())
        parts = guard.call_in_worker(where, lambda: _checked_parts(self.exporter.encode_metrics(families)), default=[])
        if parts:
            with self._lock:
                self._in_flight.append(("metrics", parts))
            self._deliver("metrics", parts, timeout)

    def _deliver(self, signal: Signal, parts: list[Part], timeout: float) -> None:
        items = sum(part.items for part in parts)
        lost = Delivery(0, items, "error")
        delivery: Delivery = guard.call_in_worker(
            f"{self.name}.send", self._try, signal, parts, items, timeout, default=lost
        )
        with self._lock:
            if self._closed:
                return  # close() has given up on it and counted it
            self._in_flight = [each for each in self._in_flight if each[1] is not parts]
            self._count(signal, delivery)
        if delivery.sent and isinstance(self.exporter, Resending):
            self._resend(self.exporter, timeout)

    def _resend(self, exporter: Resending, timeout: float) -> None:
        """Send what is left from before, now that somebody takes it."""
        until = time.monotonic() + timeout
        while not self._closed and time.monotonic() < until:
            left = guard.call_in_worker(f"{self.name}.resend", exporter.resend, until - time.monotonic())
            if left is None:
                break
            with self._lock:
                self._count(*left)

    def _count(self, signal: Signal, delivery: Delivery) -> None:
        for counts, items in ((self.sent, delivery.sent), (self.kept, delivery.kept)):
            if items:
                counts[signal] = counts.get(signal, 0) + items
        self._drop(signal, delivery.dropped, delivery.reason)

    def _try(self, signal: Signal, parts: list[Part], items: int, timeout: float) -> Delivery:
        """Send, and make what the exporter says of it add up to what it was given."""
        delivery = self.exporter.send(signal, parts, timeout)
        sent = min(max(0, int(delivery.sent)), items)
        kept = min(max(0, int(delivery.kept)), items - sent)
        return Delivery(sent, items - sent - kept, guard.render(delivery.reason, 64) or "error", kept)

    # --- from outside ---

    def flush(self, timeout: float) -> bool:
        """Send everything that waits. False when time ran out, or something was lost since the last flush."""
        self.urge()
        return self.settle(timeout)

    def urge(self) -> None:
        """Begin to send everything that waits, and the metrics as they are now."""
        with self._lock:
            self._flushing = not self._closed
            self._metrics_asked = self._flushing and self.exporter.metrics_interval is not None
        self.thread.wake()

    def settle(self, timeout: float) -> bool:
        """Wait for what `urge` has begun; where there is no thread, send here. Returns what `flush` does."""
        until = time.monotonic() + timeout
        if self.thread.is_current():
            return False  # it cannot wait for itself
        if not self.thread.running and not self._closed:
            self.step(until)
        with self._idle:
            done = self._idle.wait_for(lambda: not self._flushing, max(0.0, until - time.monotonic()))
            self._hurry = self._closed
            before, self._reported = self._reported, sum(self.dropped.values()) + sum(self.kept.values())
            return done and self._reported == before

    def hasten(self) -> None:
        """Begin to send everything that waits, and wait no more between tries."""
        self._hurry = True
        self.urge()

    def close(self, timeout: float) -> bool:
        """Send what can be sent in `timeout` seconds without waiting between tries; count the rest as dropped."""
        if self._closed:
            return True
        if not self._hurry:
            self.hasten()
        done = self.settle(timeout)
        self.thread.stop(0.1 if done else 0.0)
        with self._lock:
            self._closed = True
            left = [*self._in_flight, *((signal, list(parts)) for signal, parts in self._waiting.items())]
            self._items, self._waiting, self._in_flight, self._held = {}, {}, [], 0
            for signal, parts in left:
                self._abandon(signal, parts)
        guard.call_in_worker(f"{self.name}.close", self.exporter.close)
        return done

    def _abandon(self, signal: Signal, parts: list[Part]) -> None:
        """Keep what there is no time to send, or count it as lost."""
        items = sum(part.items for part in parts)
        if not items:
            return
        delivery = Delivery(0, items)
        if isinstance(self.exporter, Resending):  # with no time to send it keeps
            delivery = guard.call_in_worker(f"{self.name}.keep", self._try, signal, parts, items, 0.0, default=delivery)
        self._count(signal, delivery._replace(reason="shutdown"))

    def after_fork(self) -> None:
        """In a forked child: what waits belongs to the parent."""
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self.sent, self.kept, self.dropped = {}, {}, {}
        self._empty()
        if self.thread.forget():
            # Its thread had not ended in time, and may have held a lock of the exporter's for ever: not even `close`
            # can be called. It is kept, because nobody may be warned of what it leaves open.
            _inherited.append(self.exporter)
        else:
            guard.call_in_worker(f"{self.name}.close", self.exporter.close)
        # One of the child's own, which names the child as its resource.
        self.exporter = guard.call_in_worker(f"{self.name}.fork", self._make, self.wait, default=self.exporter)

    def pending(self) -> dict[Signal, int]:
        """Return how many items wait or are on their way."""
        with self._lock:
            pending = dict(self._items)
            for signal, parts in self._in_flight:
                pending[signal] = pending.get(signal, 0) + sum(part.items for part in parts)
        return pending

    def _busy(self) -> bool:
        return self._metrics_asked or any(self._items.values()) or bool(self._in_flight)

    def _drop(self, signal: Signal, items: int, reason: str) -> None:
        if items:
            self.dropped[signal, reason] = self.dropped.get((signal, reason), 0) + items

    def collect(self) -> Iterable[Family]:
        """Return what was sent and what was lost, and how much waits."""
        with self._lock:
            sent = [Point({"exporter": self.name, "signal": signal}, items) for signal, items in self.sent.items()]
            kept = [Point({"exporter": self.name, "signal": signal}, items) for signal, items in self.kept.items()]
            lost = [
                Point({"exporter": self.name, "signal": signal, "reason": reason}, items)
                for (signal, reason), items in self.dropped.items()
            ]
            held = [Point({"queue": self.name}, self._held)]
        yield Family(
            "insitu.exported_records", "counter", sent, help="Spans, log records and points that a back-end took."
        )
        text = "Spans and log records that were kept on disk until a back-end takes them."
        yield Family("insitu.spooled_records", "counter", kept, help=text)
        yield Family(
            "insitu.dropped_records", "counter", lost, help="Spans, log records and points that were lost, by reason."
        )
        yield Family("insitu.queue.size", "gauge", held, unit="By", help="Bytes waiting in a queue.", merge="sum")


_inherited: list[Exporter] = []


def _checked_parts(parts: Iterable[Part]) -> list[Part]:
    checked = list(parts)
    if not all(isinstance(part, Part) for part in checked):
        raise TypeError("an exporter encodes to insitu.core.ports.Part")
    return checked
