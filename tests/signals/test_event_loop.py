import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import pytest

from insitu.core import guard
from insitu.core.clock import SYSTEM, Clock
from insitu.core.records import Frame
from insitu.signals import event_loop
from insitu.signals.event_loop import EventLoopMonitor, culprit, describe

try:
    import uvloop
except ImportError:
    uvloop = None

RUNNERS = [asyncio.SelectorEventLoop] + ([uvloop.new_event_loop] if uvloop else [])


@pytest.fixture(autouse=True)
def swallowed():
    """No test here may pass over an internal error."""
    errors = []
    guard.watch(errors.append)
    yield errors
    guard.watch(None)
    assert errors == []


@pytest.fixture
def reports():
    return []


class Time:
    """A clock in the test's hand, in seconds."""

    def __init__(self):
        self.now = 100.0
        self.clock = Clock(wall=lambda: 5, monotonic=lambda: int(self.now * 1e9), cpu=lambda: 0)


@pytest.fixture
def monitor(reports):
    """A monitor that beats every 20 ms, and whose watcher never rests."""
    watched = EventLoopMonitor(SYSTEM, lambda seconds, frames: reports.append((seconds, frames)), beat=0.02)
    stop = threading.Event()

    def watch():
        while not stop.wait(0.02):
            watched.watch()

    thread = threading.Thread(target=watch)
    thread.start()
    yield watched
    stop.set()
    thread.join()
    watched.close()


def run(main, factory=asyncio.SelectorEventLoop):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def family(monitor, name):
    return next((each for each in monitor.collect() if each.name == name), None)


def beats(monitor):
    lag = family(monitor, "insitu.event_loop.lag")
    return sum(lag.points[0].buckets) if lag else 0


def a_slow_report(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("factory", RUNNERS, ids=lambda factory: factory.__module__)
def test_who_blocks_the_loop_is_named(monitor, reports, factory):
    async def main():
        monitor.attach()
        await until(lambda: beats(monitor) > 1)
        a_slow_report(0.3)
        await until(named_reports)

    def named_reports():  # on a busy machine others may be late as well
        return [each for each in reports if culprit(each[1]).code is a_slow_report.__code__]

    run(main(), factory)
    ((seconds, frames),) = named_reports()
    assert 0.2 < seconds < 5
    assert frames[0].code.co_name == "main"
    named = culprit(frames)
    assert named.code is a_slow_report.__code__
    sentence = describe(seconds, frames)
    assert sentence == f"event loop blocked for {seconds * 1e3:.0f} ms by {__file__}:{named.line} in a_slow_report"
    points = family(monitor, "insitu.event_loop.blocked").points
    (point,) = [each for each in points if each.labels.get("code.function.name") == "a_slow_report"]
    assert point.value == 1
    assert point.labels == {
        "code.file.path": __file__, "code.line.number": named.line, "code.function.name": "a_slow_report",
    }  # fmt: skip


@pytest.mark.parametrize("factory", RUNNERS, ids=lambda factory: factory.__module__)
def test_a_loop_that_only_waits_for_events_is_not_blocked_however_late_its_timer_is(reports, factory):
    time = Time()
    watched = EventLoopMonitor(time.clock, lambda *_: reports.append(1))
    ready, done = threading.Event(), threading.Event()

    def serve():
        async def main():
            watched.attach()
            loop, release = asyncio.get_running_loop(), asyncio.Event()
            threading.Thread(target=lambda: (done.wait(20), loop.call_soon_threadsafe(release.set))).start()
            ready.set()
            await release.wait()

        run(main(), factory)

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(20)
    (heart,) = watched.hearts
    while event_loop._stack(heart.thread):  # until it waits
        ready.wait(0.01)
    time.now += 1.0
    watched.watch()
    assert heart.frames == ()
    assert heart.due > 0
    done.set()
    thread.join(20)
    assert not thread.is_alive()
    assert reports == []


def test_time_between_two_runs_of_a_loop_is_nobodys_fault(monitor, reports):
    async def main():
        monitor.attach()
        await until(lambda: beats(monitor) > 1)

    with asyncio.Runner() as runner:
        runner.run(main())
        a_slow_report(0.3)
        before = beats(monitor)
        runner.run(until(lambda: beats(monitor) > before + 2))
        assert reports == []
        assert family(monitor, "insitu.event_loop.lag").points[0].value < 0.2


def test_a_loop_is_not_kept_alive_and_what_it_measured_is(monitor):
    async def main():
        monitor.attach()
        await until(lambda: beats(monitor) > 1)
        return weakref.ref(asyncio.get_running_loop())

    loop = run(main())
    counted = beats(monitor)
    deadline = time.monotonic() + 10
    while (loop() is not None or monitor.hearts) and time.monotonic() < deadline:
        gc.collect()
    assert loop() is None
    assert monitor.hearts == []
    assert beats(monitor) == counted > 1


def test_attaching_twice_is_attaching_once(monitor):
    async def main():
        for _ in range(100):
            monitor.attach()
        await until(lambda: beats(monitor) > 1)
        assert len(monitor.hearts) == 1

    run(main())


def test_several_loops_are_watched_at_once(monitor, reports):
    def serve():
        async def main():
            monitor.attach()
            await until(lambda: len(monitor.hearts) == 3 and all(sum(heart.lags) > 1 for heart in monitor.hearts))

        run(main())

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_the_timer_does_not_hold_the_request_that_set_it(monitor):
    import contextvars

    class Request:
        pass

    current = contextvars.ContextVar("current")

    async def request():
        made = Request()
        current.set(made)
        monitor.attach()
        return weakref.ref(made)

    async def main():
        made = await asyncio.create_task(request())
        await until(lambda: beats(monitor) > 1)
        gc.collect()
        assert made() is None

    run(main())


def test_a_loop_outside_of_which_one_attaches_is_an_internal_error_only(swallowed):
    EventLoopMonitor(SYSTEM, lambda *_: None).attach()
    assert [type(error) for error in swallowed] == [RuntimeError]
    swallowed.clear()


def test_a_report_that_raises_costs_nothing_but_itself(swallowed):
    def raising(seconds, frames):
        raise ValueError(seconds)

    watched = EventLoopMonitor(SYSTEM, raising, beat=0.01, late=0.02)
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [watched.watch() for _ in iter(lambda: stop.wait(0.01), True)])
    thread.start()

    async def main():
        watched.attach()
        a_slow_report(0.15)
        await until(lambda: swallowed)

    run(main())
    stop.set()
    thread.join()
    assert {type(error) for error in swallowed} == {ValueError}
    swallowed.clear()


def test_a_process_that_was_asleep_blames_no_loop(reports):
    time = Time()
    watched = EventLoopMonitor(time.clock, lambda *_: reports.append(1))

    async def main():
        watched.attach()
        watched.watch()
        time.now += 3600
        watched.watch()
        watched.hearts[0].beat()
        assert family(watched, "insitu.event_loop.lag").points[0].value == 0
        assert watched.hearts[0].due == int((time.now + event_loop.BEAT) * 1e9)

    run(main())
    assert reports == []


def test_a_block_that_lasts_is_reported_before_it_ends_and_once_more_at_its_end(reports):
    time = Time()
    watched = EventLoopMonitor(time.clock, lambda seconds, frames: reports.append(round(seconds, 1)))

    async def main():
        watched.attach()
        time.now += 0.5
        for _ in range(16):  # eight seconds, in which this very function does not let go of the loop
            watched.watch()
            time.now += 0.5
        watched.hearts[0].beat()
        watched.watch()

    run(main())
    assert reports == [5.5, 8.0]
    assert family(watched, "insitu.event_loop.blocked").points[0].value == 1


def test_the_places_told_apart_are_bounded_and_no_block_is_lost():
    time = Time()
    watched = EventLoopMonitor(time.clock, lambda *_: None)

    async def main():
        watched.attach()
        for number in range(250):
            space = {}
            exec(compile(f"def f{number}(): pass", f"/app/{number}.py", "exec"), space)
            watched.hearts[0].frames = (Frame(space[f"f{number}"].__code__, 1),)
            time.now += 1.0
            watched.hearts[0].beat()
            watched.watch()

    run(main())
    points = family(watched, "insitu.event_loop.blocked").points
    assert len(points) == event_loop.PLACES + 1
    assert sum(point.value for point in points) == 250
    assert points[-1].labels == {"code.file.path": "other"}
    assert points[-1].value == 150


def test_a_forked_childs_reset_leaves_nothing_of_the_parent(monitor):
    async def main():
        monitor.attach()
        await until(lambda: beats(monitor) > 1)
        (heart,) = monitor.hearts
        monitor.reset()
        assert monitor.collect() == []
        heart.beat()
        assert monitor.collect() == []
        monitor.attach()
        await until(lambda: beats(monitor) > 1)

    run(main())


def test_the_application_is_named_before_the_library_that_it_called():
    own = Frame(a_slow_report.__code__, 7)
    library = Frame(threading.Thread.run.__code__, 9)
    installed = Frame(
        pytest.skip.__code__ if hasattr(pytest.skip, "__code__") else anyio.to_thread.run_sync.__code__, 3
    )
    assert culprit((own, library, installed)) is own
    assert culprit((library, installed)) is installed
    assert culprit(()) is None
    assert describe(0.8125, ()) == "event loop blocked for 812 ms"


def pools(monitor):
    return {
        (each.name.rpartition(".")[2], point.labels["pool"]): point.value
        for each in monitor.collect()
        if each.name.startswith("insitu.thread_pool.")
        for point in each.points
    }


def test_the_pools_of_threads_are_measured(monitor):
    release = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(2)
        loop.set_default_executor(executor)
        monitor.attach()
        anyio.to_thread.current_default_thread_limiter().total_tokens = 3
        calls = [asyncio.create_task(anyio.to_thread.run_sync(release.wait)) for _ in range(5)]
        futures = [loop.run_in_executor(None, release.wait) for _ in range(6)]
        busy = {
            ("size", "anyio"): 3, ("active", "anyio"): 3, ("waiting", "anyio"): 2,
            ("size", "asyncio"): 2, ("active", "asyncio"): 2, ("waiting", "asyncio"): 4,
        }  # fmt: skip
        try:
            await until(lambda: pools(monitor) == busy)
        finally:
            release.set()
            await asyncio.gather(*calls, *futures)
        await until(lambda: {value for (what, _), value in pools(monitor).items() if what != "size"} == {0})
        executor.shutdown()

    run(main())


def test_anyio_is_not_imported_by_us():
    code = (
        "import asyncio, sys; from insitu.core.clock import SYSTEM\n"
        "from insitu.signals.event_loop import EventLoopMonitor\n"
        "async def main(): EventLoopMonitor(SYSTEM, print).attach()\n"
        "asyncio.run(main()); print('anyio' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (result.stdout, result.stderr) == ("False\n", "")
