"""Delivery to one exporter.

A queue capped in bytes before it, a thread of its own behind it, and every loss counted with its reason.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from insitu.core import guard
from insitu.core.ports import Delivery
from insitu.core.records import Family, Point, size
from insitu.core.threads import Background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from insitu.core.budget import Meter
    from insitu.core.clock import Clock
    from insitu.core.ports import Exporter, Part
    from insitu.core.records import Record, Signal

QUEUE_BYTES: Final = 16 * 1024 * 1024
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
        self.dropped: dict[tuple[Signal, str], int] = {}
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
        self._in_flight: dict[Signal, int] = {}
        self._flushing = False
        self._hurry = False
        self._closed = False
        self._last_send = self._last_metrics = self._now()

    def _now(self) -> float:
        return self._clock.monotonic() / 1e9

    # --- on the worker ---

    def accept(self, records: Sequence[Record]) -> None:
        """Encode records and queue them. A record that cannot be encoded is lost alone."""
        parts = guard.call(f"{self.name}.encode", self._encode, records)
        if parts is None:
            parts = [part for record in records for part in self._encode_alone(record)]
        for part in parts:
            self._offer(part)

    def _encode(self, records: Sequence[Record]) -> list[Part]:
        return list(self.exporter.encode(records))

    def _encode_alone(self, record: Record) -> list[Part]:
        parts: list[Part] | None = guard.call(f"{self.name}.encode", self._encode, [record])
        if parts is None:
            with self._lock:
                self._drop(*size(record), "encode")
        return parts or []

    def _offer(self, part: Part) -> None:
        signal = part.signal
        with self._lock:
            if self._closed or self._held + part.weight > self._cap:
                self._drop(signal, part.items, "closed" if self._closed else "queue_full")
                return
            self._held += part.weight
            self._waiting.setdefault(signal, deque()).append(part)
            self._items[signal] = self._items.get(signal, 0) + part.items
            full = self._items[signal] >= self.exporter.batch_items
        if self.thread.ensure() and full:
            self.thread.wake()

    # --- on the sender's thread ---

    def wait(self, seconds: float) -> bool:
        """Pause between two tries; True when there is no time for another."""
        return self._hurry or self.thread.wait(seconds) or self._hurry

    def step(self) -> float:
        """Send what is due; return the seconds until more can be due."""
        if self._metrics_due():
            self._send_metrics()
        while (signal := self._due()) is not None:
            self._send(signal)
            if self.thread.stopping:
                break
        with self._idle:
            if not self._busy():
                self._flushing = False
                self._idle.notify_all()
        return self._pause()

    def _metrics_due(self) -> bool:
        interval = self.exporter.metrics_interval
        return interval is not None and (self._flushing or self._now() - self._last_metrics >= interval)

    def _due(self) -> Signal | None:
        with self._lock:
            waited = self._flushing or self._now() - self._last_send >= self.exporter.delay
            for signal, items in self._items.items():
                if items and (waited or items >= self.exporter.batch_items):
                    return signal
        return None

    def _pause(self) -> float:
        with self._lock:
            now = self._now()
            pause = _LONGEST_SLEEP_SECONDS
            if any(self._items.values()):
                pause = self._last_send + self.exporter.delay - now
            if self.exporter.metrics_interval is not None:
                pause = min(pause, self._last_metrics + self.exporter.metrics_interval - now)
        return max(0.01, pause)

    def _send(self, signal: Signal) -> None:
        parts = self._take(signal)
        self._deliver(signal, parts)
        self._last_send = self._now()

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
            self._in_flight[signal] = items
        return taken

    def _send_metrics(self) -> None:
        self._last_metrics = self._now()
        families = guard.call(f"{self.name}.metrics", lambda: list(self._collect()), default=())
        parts = guard.call(f"{self.name}.metrics", lambda: list(self.exporter.encode_metrics(families)), default=[])
        if parts:
            with self._lock:
                self._in_flight["metrics"] = sum(part.items for part in parts)
            self._deliver("metrics", parts)

    def _deliver(self, signal: Signal, parts: list[Part]) -> None:
        items = sum(part.items for part in parts)
        lost = Delivery(0, items, "error")
        delivery: Delivery = guard.call_in_worker(
            f"{self.name}.send", self.exporter.send, signal, parts, SEND_TIMEOUT_SECONDS, default=lost
        )
        with self._lock:
            if self._in_flight.pop(signal, None) is None:
                return  # close() has given up on it and counted it
            self.sent[signal] = self.sent.get(signal, 0) + delivery.sent
            if delivery.dropped:
                self._drop(signal, delivery.dropped, delivery.reason)

    # --- from outside ---

    def flush(self, timeout: float) -> bool:
        """Send everything that waits. False when something was lost or time ran out."""
        with self._lock:
            lost = sum(self.dropped.values())
            self._flushing = True
        if self.thread.is_current() or not self.thread.ensure():
            self.step()
        self.thread.wake()
        with self._idle:
            done = self._idle.wait_for(lambda: not self._flushing, timeout)
            return done and sum(self.dropped.values()) == lost

    def close(self, timeout: float) -> bool:
        """Send what can be sent in `timeout` seconds without waiting between tries; count the rest as dropped."""
        self._hurry = True
        done = self.flush(timeout)
        self.thread.stop(0.1 if done else 0.0)
        with self._lock:
            self._closed = True
            for signal, items in [*self._items.items(), *self._in_flight.items()]:
                if items:
                    self._drop(signal, items, "shutdown")
            self._items, self._waiting, self._in_flight, self._held = {}, {}, {}, 0
        guard.call(f"{self.name}.close", self.exporter.close)
        return done

    def after_fork(self) -> None:
        """In a forked child: what waits belongs to the parent."""
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self.thread.forget()
        self.sent, self.dropped = {}, {}
        self._empty()
        guard.call(f"{self.name}.close", self.exporter.close)

    def pending(self) -> dict[Signal, int]:
        """Return how many items wait or are on their way."""
        with self._lock:
            pending = dict(self._items)
            for signal, items in self._in_flight.items():
                pending[signal] = pending.get(signal, 0) + items
        return pending

    def _busy(self) -> bool:
        return any(self._items.values()) or bool(self._in_flight)

    def _drop(self, signal: Signal, items: int, reason: str) -> None:
        self.dropped[signal, reason] = self.dropped.get((signal, reason), 0) + items

    def collect(self) -> Iterable[Family]:
        """Return what was sent and what was lost, and how much waits."""
        with self._lock:
            sent = [Point({"exporter": self.name, "signal": signal}, items) for signal, items in self.sent.items()]
            lost = [
                Point({"exporter": self.name, "signal": signal, "reason": reason}, items)
                for (signal, reason), items in self.dropped.items()
            ]
            held = [Point({"queue": self.name}, self._held)]
        yield Family(
            "insitu.exported_records", "counter", sent, help="Spans, log records and points that a back-end took."
        )
        yield Family(
            "insitu.dropped_records", "counter", lost, help="Spans, log records and points that were lost, by reason."
        )
        yield Family("insitu.queue.size", "gauge", held, unit="By", help="Bytes waiting in a queue.")
