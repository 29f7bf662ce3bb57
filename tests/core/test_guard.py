import logging
import threading

import pytest

from insitu.core import guard


class Unprintable:
    def __str__(self):
        raise RuntimeError("no text today")


class Base(BaseException):
    pass


class LyingMeta(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name today")


class Nameless(metaclass=LyingMeta):
    def __str__(self):
        raise RuntimeError("no text today")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(guard, "_last_logged", {})
    monkeypatch.setattr(guard, "counts", {})


def raising(error):
    def function(*_arguments):
        raise error

    return function


def test_a_result_passes_through():
    assert guard.call("here", divmod, 7, 2) == (3, 1)
    assert guard.call_in_worker("here", divmod, 7, 2) == (3, 1)
    assert guard.counts == {}


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), MemoryError(), ExceptionGroup("g", [KeyError()])])
def test_an_exception_gives_the_default_and_is_counted_with_its_place(error):
    """FAULTS 4: 0 propagate, self-metric + 1."""
    assert guard.call("here", raising(error), default=5) == 5
    assert guard.safe("there", default=6)(raising(error))() == 6
    assert guard.counts == {"here": 1, "there": 1}


@pytest.mark.parametrize("error", [SystemExit(1), Base(), GeneratorExit()])
def test_on_the_applications_threads_what_is_no_exception_is_the_applications(error):
    """A SystemExit there may come from its own signal handler: swallowing it would keep a server from ending."""
    with pytest.raises(type(error)):
        guard.call("here", raising(error))
    assert guard.counts == {}


@pytest.mark.parametrize("error", [SystemExit(1), Base(), GeneratorExit(), ValueError()])
def test_in_a_worker_everything_is_swallowed_and_counted(error):
    """FAULTS 5."""
    assert guard.call_in_worker("here", raising(error), default=5) == 5
    assert guard.counts == {"here": 1}


def test_a_ctrl_c_is_the_main_threads_only():
    """FAULTS 5: KeyboardInterrupt is kept for the main thread."""
    with pytest.raises(KeyboardInterrupt):
        guard.call_in_worker("here", raising(KeyboardInterrupt()))
    results = []
    thread = threading.Thread(
        target=lambda: results.append(guard.call_in_worker("here", raising(KeyboardInterrupt()), default=5))
    )
    thread.start()
    thread.join()
    assert results == [5]
    assert guard.counts == {"here": 1}


def test_a_decorated_function_keeps_its_name_and_its_result():
    @guard.safe("here")
    def documented(number: int) -> int:
        """Say what it does."""
        return number + 1

    assert documented(1) == 2
    assert (documented.__name__, documented.__doc__) == ("documented", "Say what it does.")


def test_an_error_is_logged_once_a_minute_for_each_place(caplog, monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    for _ in range(100):
        guard.call("here", raising(ValueError("x")))
        guard.call("there", raising(ValueError("y")))
    assert len(caplog.messages) == 2
    now[0] += 59.9
    guard.call("here", raising(ValueError("x")))
    assert len(caplog.messages) == 2
    now[0] += 0.2
    guard.call("here", raising(ValueError("x")))
    assert len(caplog.messages) == 3
    assert caplog.messages[2] == "insitu: here failed with ValueError: x (the application is not affected)"
    assert guard.counts == {"here": 102, "there": 100}


def test_a_warning_is_logged_in_the_first_minute_after_the_machine_started(caplog, monkeypatch):
    monkeypatch.setattr(guard.time, "monotonic", lambda: 0.5)
    guard.warn("topic", "said %s", "once")
    assert caplog.messages == ["said once"]


def test_an_error_without_a_text_is_reported_too(caplog):
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError

    guard.call("here", raising(Silent()))
    assert "Silent: <unprintable Silent>" in caplog.messages[0]


def test_a_handler_of_the_host_that_raises_is_survived(monkeypatch):
    class Broken(logging.Handler):
        def emit(self, record):
            raise OSError("disk full")

    handler = Broken()
    guard.logger.addHandler(handler)
    try:
        assert guard.call("here", raising(ValueError()), default=1) == 1
    finally:
        guard.logger.removeHandler(handler)


def test_places_and_topics_are_bounded():
    for number in range(3_000):
        guard.report(f"place {number}", ValueError())
    assert len(guard.counts) <= 1_001
    assert guard.counts["other"] == 2_000
    assert len(guard._last_logged) <= 1_000


def test_a_watcher_sees_what_was_swallowed():
    seen = []
    guard.watch(seen.append)
    try:
        error = ValueError()
        guard.call("here", raising(error))
    finally:
        guard.watch(None)
    guard.call("here", raising(ValueError()))
    assert seen == [error]


def test_counts_are_exact_over_several_threads():
    def work():
        for _ in range(500):
            guard.call("here", raising(ValueError()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guard.counts == {"here": 2_000}


class Text(str):
    __slots__ = ()

    def __len__(self):
        return 0

    def __str__(self):
        return self


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text", "text"),
        (5, "5"),
        (None, "None"),
        (Unprintable(), "<unprintable Unprintable>"),
        (Nameless(), "<unprintable Nameless>"),
        ("x" * 9_000, "x" * 8_192),
        (Text("y" * 9_000), "y" * 8_192),
    ],
    ids=["str", "int", "None", "unprintable", "nameless", "long", "subclass"],
)
def test_anything_is_rendered_as_an_exact_bounded_str(value, shown):
    """FAULTS 1."""
    rendered = guard.render(value)
    assert type(rendered) is str
    assert rendered == shown


def test_a_child_begins_with_a_free_lock_and_no_counts():
    guard.report("here", ValueError())
    guard._lock.acquire()
    held = guard._lock
    try:
        guard.after_fork()
        assert guard.counts == {}
        done = threading.Thread(target=guard.report, args=("there", ValueError()))
        done.start()
        done.join(5.0)
        assert guard.counts == {"there": 1}
    finally:
        held.release()
