"""From the application's threads to the store and the exporters: bounded queue, one worker, periodic jobs, fork, exit.

    put → queue (bytes) → worker: count → keep → redact → sinks

The worker handles slices so small that a request never waits long for the interpreter's lock, and naps in between;
how many bytes a slice may have follows from what the last ones took.
Counts never depend on the queue's room: when it is full, the caller counts the record itself and only its detail is
dropped, and that is counted too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Protocol

from insitu.core import clock as clocks
from insitu.core import guard
from insitu.core.records import Family, LocalTrace, Point, size
from insitu.core.threads import Background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from insitu.core.budget import Meter
    from insitu.core.clock import Clock
    from insitu.core.records import Record
    from insitu.core.sender import Sender

    Job = Callable[[], Iterable[None] | None]

QUEUE_BYTES: Final = 16 * 1024 * 1024
INTERVAL_SECONDS: Final = 0.5
EXIT_SECONDS: Final = 2.0
FORK_SECONDS: Final = 0.5
_SLICE_RECORDS: Final = 64
_SLICE_NANOSECONDS: Final = 250_000
"""What a slice may take: a request that wants the interpreter's lock waits for the rest of one."""
_LEAST_SLICE_BYTES: Final = 1024
_MOST_SLICE_BYTES: Final = 96 * 1024
_NAP_SECONDS: Final = 0.0005
_MOMENT_SECONDS: Final = 1e-6
"""Long enough for a waiting thread to take the lock: the kernel makes 50 µs of it."""
_SHORTEST_TURN_NANOSECONDS: Final = 1_000_000
_LONGER_TURN_NANOSECONDS: Final = 2_000_000
"""How long the application goes on before it makes way for the worker again; the second as far as there is room."""
_SLICES_A_STEP: Final = 200


class Sink(Protocol):
    """Takes redacted records, on the worker's thread, without waiting for anything."""

    def accept(self, records: Sequence[Record]) -> None:
        """Take some records."""


class Pipeline:
    """The one way a record goes.

    Args:
        clock, meter: time and the ledger.
        count: folds records into the aggregates; exact, and called once for each record, whatever becomes of its
            detail.
        keep: returns those of some records whose detail goes any further; asked only where there is a sink.
        redact: cleans one record in place; called only where there is a sink.
        threads: False leaves all work to `flush`, for tests that own the time.
        queue_bytes: cap of the queue.

    """

    def __init__(
        self,
        clock: Clock,
        meter: Meter,
        *,
        count: Callable[[Sequence[Record]], None],
        keep: Callable[[Sequence[Record]], list[Record]],
        redact: Callable[[Record], None],
        threads: bool = True,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.clock = clock
        self.meter = meter
        self.sinks: list[Sink] = []
        self.senders: list[Sender] = []
        self.forked: list[Callable[[], None]] = []
        self.ending: list[Callable[[], None]] = []
        """Called once, when everything is counted and handed on: what is kept on disk is closed."""
        self.open = True
        self._count = count
        self._keep = keep
        self._redact = redact
        self._threads = threads
        self._cap = queue_bytes
        self._crowded = queue_bytes // 8
        self._jobs: list[_Job] = []
        self._lock = threading.RLock()
        self._draining = threading.RLock()
        self._reads: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self.worker = Background("worker", self._step, meter, clock)
        self.reader = Background("reader", self._read_all, meter, clock)
        self._reset()
        _live.add(self)
        atexit.register(self._exit)

    def _reset(self) -> None:
        self._queue: deque[Record] = deque()
        self._held = 0
        self.produced: dict[str, int] = {"traces": 0, "logs": 0}
        self.dropped: dict[tuple[str, str], int] = {}
        self._reported = 0
        self._slice_bytes = 16 * 1024
        self._made_way = 0

    # --- the application's threads ---

    def put(self, record: Record, weight: int) -> None:
        """Queue a record that weighs `weight` bytes. Never blocks, never raises.

        Without a lock, which would cost a request more than all the rest here: while CPython has its global lock it
        never leaves a thread between reading and writing in `+=`.
        """
        if self._held + weight > self._cap:
            self._overflow(record)
            return
        record.held = weight
        self._held += weight
        self._queue.append(record)
        if self.worker._thread is None or self._held > self._crowded:
            self._attend()

    def _attend(self) -> None:
        """Look after a queue that nobody empties, or not fast enough."""
        if not self.open:  # closed since the caller looked for room
            self._abandon()
        elif self.worker._thread is None:
            self._start()
        else:
            self._make_way()

    def _make_way(self) -> None:
        """Let the worker have the interpreter's lock now and then, where the application never leaves it for long.

        CPython asks a thread to give up the lock when another has waited 5 ms since the last release, and an event
        loop under load releases it many times in that time, each for the length of a system call that is over before
        the waiting thread has woken: the worker was seen to get 15 turns a second. The caller waits for one slice at
        the most; how often follows from the room that is left.
        """
        now = self.clock.monotonic()
        room = (self._cap - self._held) / self._cap
        if now - self._made_way > _SHORTEST_TURN_NANOSECONDS + room * _LONGER_TURN_NANOSECONDS:
            self._made_way = now
            self.worker.wake()
            if self._threads:
                time.sleep(_MOMENT_SECONDS)

    def _overflow(self, record: Record) -> None:
        guard.call("pipeline.count", self._count, (record,))
        signal, items = size(record)
        with self._lock:
            self.produced[signal] += items
            self._drop(signal, items, "queue_full" if self.open else "shutdown")
        self._start()
        self.worker.wake()

    def _drop(self, signal: str, items: int, reason: str) -> None:
        if items:
            self.dropped[signal, reason] = self.dropped.get((signal, reason), 0) + items

    def work(self) -> None:
        """See to it that our threads run."""
        if self.worker._thread is None:
            self._start()

    def _start(self) -> None:
        """Start our threads: all of them now, because at the interpreter's end none can be started."""
        if self._threads and self.open:
            self.worker.ensure()
            for sender in self.senders:
                sender.thread.ensure()

    def read(self, function: Callable[[], Any]) -> Future[Any]:
        """Run `function` on the reader's thread: for scrapes and pages, which may not run on an event loop."""
        future: Future[Any] = Future()
        self._reads.append((function, future))
        if self._threads and self.open and self.reader.ensure():
            self.reader.wake()
        else:
            self._read_all()
        self._start()
        return future

    # --- the worker ---

    def every(self, seconds: float, function: Job, name: str) -> None:
        """Call `function` on the worker about every so many seconds.

        What may take longer than a slice yields where the worker may nap.
        """
        self._jobs.append(_Job(seconds, function, name))

    def _step(self) -> float:
        for _ in range(_SLICES_A_STEP):
            with self._draining:
                more = self._turn()
            if self.worker.stopping or not more:
                break
            time.sleep(_NAP_SECONDS)
        self.run_jobs()
        return INTERVAL_SECONDS if not self._queue else _NAP_SECONDS

    def run_jobs(self) -> None:
        """Run the jobs that are due."""
        now = self.clock.monotonic() / 1e9
        for job in self._jobs:
            if now >= job.due:
                job.due = now + job.seconds
                guard.call_in_worker(job.name, self._run, job.function)

    def _run(self, function: Job) -> None:
        for _ in function() or ():
            if self._threads and not self.worker.stopping:
                time.sleep(_NAP_SECONDS)

    def _turn(self) -> bool:
        """Handle what should fit into one turn of the worker, and learn from what it took."""
        began = self.clock.cpu()
        weight = self._slice(self._slice_bytes)
        if weight:
            self._learn(weight, self.clock.cpu() - began)
        return weight > 0

    def _slice(self, most: int) -> int:
        """Handle about so many bytes, in whoever holds `_draining`; return how many, 0 when the queue is empty."""
        records: list[Record] = []
        weight = 0
        queue = self._queue
        while queue and len(records) < _SLICE_RECORDS and weight < most:
            record = queue.popleft()
            records.append(record)
            weight += record.held
        if not records:
            return 0
        traces = [record for record in records if type(record) is LocalTrace]
        spans = sum([len(trace.spans) for trace in traces if trace.sampled])
        self._held -= weight
        with self._lock:
            self.produced["traces"] += spans
            self.produced["logs"] += len(records) - len(traces)
        self._handle(records)
        return weight

    def _learn(self, weight: int, took: int) -> None:
        """Choose the next slice's bytes by what this one's cost.

        A byte of a trace that is redacted and encoded for two exporters costs a hundred times one that is only counted.
        """
        fits = weight * _SLICE_NANOSECONDS // max(took, 1)
        self._slice_bytes = min(max(fits, _LEAST_SLICE_BYTES), 2 * self._slice_bytes, _MOST_SLICE_BYTES)

    def _handle(self, records: list[Record]) -> None:
        kept = guard.call("pipeline.keep", self._keep, records, default=records) if self.sinks else []
        guard.call("pipeline.count", self._count, records)  # after the decision: an exemplar names what is kept
        if not self.sinks:
            return
        if not guard.call("pipeline.redact", self._are_clean, kept, default=False):
            kept = self._clean_alone(kept)
        for sink in self.sinks:
            guard.call_in_worker("pipeline.sink", sink.accept, kept)

    def _are_clean(self, records: list[Record]) -> bool:
        for record in records:
            self._redact(record)
        return True

    def _clean_alone(self, records: list[Record]) -> list[Record]:
        """Redact one record at a time, after one of them has failed; that one goes nowhere: it may hold a secret."""
        clean = [record for record in records if guard.attempt(self._are_clean, [record], default=False)]
        passed = set(map(id, clean))
        with self._lock:
            for record in records:
                if id(record) not in passed:
                    self._drop(*size(record), "redact")
        return clean

    # --- from outside ---

    def drain(self, timeout: float) -> bool:
        """Count and hand on what is queued, in the calling thread and without naps. False when time ran out."""
        deadline = time.monotonic() + timeout
        while self._draining.acquire(timeout=max(0.0, deadline - time.monotonic())):
            try:
                more = self._slice(_MOST_SLICE_BYTES)
            finally:
                self._draining.release()
            if not more:
                return True
            if time.monotonic() > deadline:
                return not self._queue
        return False

    def flush(self, timeout: float, *, hurry: bool = False) -> bool:
        """Drain, then have all senders send. False when time ran out, or something was lost since the last flush.

        In a hurry, as where a server ends, nobody waits between two tries.
        """
        deadline = time.monotonic() + timeout
        self._start()
        done = self.drain(timeout)
        for sender in self.senders:
            if hurry:
                sender.hasten()
            else:
                sender.urge()
        for sender in self.senders:
            done = sender.settle(max(0.0, deadline - time.monotonic())) and done
        return self._lost_none() and done

    def _lost_none(self) -> bool:
        with self._lock:
            before, self._reported = self._reported, sum(self.dropped.values())
            return self._reported == before

    def close(self, timeout: float) -> bool:
        """Deliver what can be delivered in time, end all threads, and refuse everything after that.

        What is refused is counted still, and counted as dropped. False when something was lost; closing twice is
        closing once.
        """
        deadline = time.monotonic() + timeout
        self._start()
        with self._lock:
            if not self.open:
                return True
            self.open = False
            self._cap = self._crowded = -1  # no room for anything, and whoever has just found some looks again
        atexit.unregister(self._exit)
        _live.discard(self)
        self.worker.stop(timeout / 4)
        done = self.drain(timeout / 2)
        self._abandon()
        for callback in self.ending:
            guard.call("pipeline.end", callback)
        for sender in self.senders:
            sender.hasten()
        for sender in self.senders:
            done = sender.close(max(0.1, deadline - time.monotonic())) and done
        self.reader.stop(0.1)
        while self._reads:
            self._reads.popleft()[1].cancel()
        return self._lost_none() and done

    def _abandon(self) -> None:
        with contextlib.suppress(IndexError):  # no more
            while True:
                record = self._queue.popleft()
                self._held -= record.held
                self._overflow(record)

    def _exit(self) -> None:
        before, kept_before = self._lost(), self._kept_on_disk()
        if not self.close(EXIT_SECONDS):
            lost, kept = self._lost() - before, self._kept_on_disk() - kept_before
            text = "insitu: %d records could not be delivered before the process ended; %d wait on disk"
            guard.warn("exit", text, lost, kept)

    def _lost(self) -> int:
        return sum(self.dropped.values()) + sum(sum(sender.dropped.values()) for sender in self.senders)

    def _kept_on_disk(self) -> int:
        return sum(sum(sender.kept.values()) for sender in self.senders)

    def _read_all(self) -> float:
        while self._reads:
            try:
                function, future = self._reads.popleft()
            except IndexError:  # another thread was faster
                break
            if future.set_running_or_notify_cancel():
                _settle(future, function)
        return 60.0

    # --- fork ---

    def before_fork(self) -> None:
        """End our threads.

        So that `fork` has nothing to warn of and no lock is held by a thread that the child lacks.
        """
        running = [thread for thread in self._all_threads() if thread.running]
        for thread in running:
            thread.ask_to_stop()
        for thread in running:
            thread.stop(FORK_SECONDS)
        if running:
            time.sleep(_NAP_SECONDS)  # the kernel counts a joined thread for a moment longer, and so does the warning
        self._drained = self._draining.acquire(timeout=FORK_SECONDS)
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on.

        Threads start again when they are needed: one that lives when `os.fork` returns makes it warn. Those that did
        not end in time stay.
        """
        self._lock.release()
        if self._drained:
            self._draining.release()
        for thread in self._all_threads():
            if thread.running:
                thread.ensure()

    def _all_threads(self) -> list[Background]:
        return [self.worker, self.reader, *(sender.thread for sender in self.senders)]

    def after_fork_in_child(self) -> None:
        """Begin anew: what was queued is the parent's."""
        self._lock = threading.RLock()
        self._draining = threading.RLock()
        self._reads.clear()
        self.worker.forget()
        self.reader.forget()
        self._reset()
        self.meter.reset()
        for callback in self.forked:
            guard.call("pipeline.fork", callback)
        for sender in self.senders:
            sender.after_fork()

    def collect(self) -> Iterable[Family]:
        """Return what was produced, what was lost, and how much waits."""
        with self._lock:
            produced = [Point({"signal": signal}, items) for signal, items in self.produced.items()]
            dropped = [
                Point({"signal": signal, "reason": reason}, items) for (signal, reason), items in self.dropped.items()
            ]
            held = [Point({"queue": "worker"}, self._held)]
        errors = [Point({"where": where}, times) for where, times in list(guard.counts.items())]
        yield Family(
            "insitu.records", "counter", produced, help="Spans, log records and errors that the application produced."
        )
        yield Family(
            "insitu.dropped_records",
            "counter",
            dropped,
            help="Spans, log records and points that were lost, by reason.",
        )
        yield Family("insitu.queue.size", "gauge", held, unit="By", help="Bytes waiting in a queue.", merge="sum")
        yield Family(
            "insitu.internal_errors",
            "counter",
            errors,
            help="Errors inside insitu or in callbacks given to it, swallowed.",
        )


class _Job:
    __slots__ = ("due", "function", "name", "seconds")

    def __init__(self, seconds: float, function: Job, name: str) -> None:
        self.seconds = seconds
        self.function = function
        self.name = name
        self.due = 0.0


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    failed = object()
    result = guard.call_in_worker("pipeline.read", function, default=failed)
    if result is failed:
        future.set_exception(RuntimeError("insitu could not answer; the log says why"))
    else:
        future.set_result(result)


_live: weakref.WeakSet[Pipeline] = weakref.WeakSet()


_forking = threading.local()
"""What the fork in progress in this thread has locked: a pipeline may be closed by another thread meanwhile."""


def _before_fork() -> None:
    _forking.pipelines = list(_live)
    for pipeline in _forking.pipelines:
        pipeline.before_fork()


def _after_fork_in_parent() -> None:
    for pipeline in vars(_forking).pop("pipelines"):
        pipeline.after_fork_in_parent()


def _after_fork_in_child() -> None:
    clocks.reseed()
    guard.after_fork()
    for pipeline in vars(_forking).pop("pipelines"):
        pipeline.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
