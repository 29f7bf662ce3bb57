import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from insitu.analysis.keeping import REASONS, Tally
from insitu.core import guard
from insitu.core.questions import LogSearch, Period, TraceSearch
from insitu.core.records import UNDECIDED, ErrorRecord, Family, Point
from insitu.core.threads import Slices
from insitu.signals.intervals import Intervals
from insitu.store.folder import databases, place_for, remove_if_dead
from insitu.store.reader import Reader
from insitu.store.rollups import HOUR
from insitu.store.writer import Writer
from insitu.testing import FakeClock
from tests.store.facts import SECOND, START, a_log, a_span, a_trace


class Store:
    """A writer and a reader of one folder."""

    def __init__(self, folder, *, after=0.0, **options):
        self.clock = FakeClock()
        self.clock.advance(after)
        self.tallies = []
        self.intervals = Intervals(self.clock.wall)
        self.writer = Writer(folder, self.clock, self._closed, self.intervals.take, **options)
        self.reader = Reader(folder, self.writer.database)

    def _closed(self):
        closed, self.tallies = self.tallies, []
        return closed

    def put(self, *records):
        self.writer.accept(records)
        self.writer.write()

    def names(self, search=None, **period):
        return [found["name"] for found in self.reader.traces(search or TraceSearch(), Period(**period), 10).found]

    def bodies(self, search=None, **period):
        return [found["body"] for found in self.reader.logs(search or LogSearch(), Period(**period), 10).found]


@pytest.fixture(params=["on disk", "in memory"])
def store(request, tmp_path):
    made = Store(place_for(str(tmp_path / "store"), "shop") if request.param == "on disk" else None)
    yield made
    made.writer.close()


def test_only_what_is_kept_is_stored(store):
    store.put(a_trace(name="kept"), a_trace(name="gone", kept=""), a_log("said"))
    assert (store.names(), store.bodies()) == (["kept"], ["said"])


def test_a_log_record_that_cannot_be_stored_is_lost_alone(store):
    store.put(a_log("before"), a_log("beyond every clock", at=1 << 70), a_log("behind"))
    assert sorted(store.bodies()) == ["before", "behind"]


def test_the_newest_comes_first_across_blocks_and_a_period_cuts(store):
    for number in range(5):
        store.put(a_trace(name=f"n{number}", at=START + number * SECOND))
    assert store.names() == ["n4", "n3", "n2", "n1", "n0"]
    assert store.names(since=START + SECOND, until=START + 3 * SECOND) == ["n3", "n2", "n1"]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (TraceSearch(name="GET /b"), ["GET /b"]),
        (TraceSearch(name="GET /none"), []),
        (TraceSearch(outcome="5"), ["POST /c"]),
        (TraceSearch(least=SECOND), ["GET /b"]),
        (TraceSearch(most=SECOND // 1_000), ["GET /a"]),
        (TraceSearch(failed=True), ["POST /c"]),
        (TraceSearch(reason="slow"), ["GET /b"]),
        (TraceSearch(key="tenant.id", value="acme"), ["GET /a"]),
        (TraceSearch(value="acme"), ["GET /a"]),
        (TraceSearch(key="tenant.id"), ["GET /b", "GET /a"]),
        (TraceSearch(key="items", value="3"), ["GET /b"]),
        (TraceSearch(key="acme"), []),
    ],
)
def test_traces_are_found_by_route_outcome_duration_reason_and_attribute(store, search, found):
    store.put(
        a_trace(name="GET /a", seconds=0.0005, own={"tenant.id": "acme"}),
        a_trace(name="GET /b", seconds=2, own={"tenant.id": 'a"b', "items": 3}, kept="slow", at=START + 1),
        a_trace(name="POST /c", answer="503", failed=True, kept="error", at=START + 2),
    )
    assert store.names(search) == found


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (LogSearch(severity=13), ["Payment REFUSED"]),
        (LogSearch(logger="shop.cart"), ["cart"]),
        (LogSearch(text="refused"), ["Payment REFUSED"]),
        (LogSearch(text="acme"), ["cart"]),
        (LogSearch(trace_id=f"{0xABC:032x}"), ["cart"]),
    ],
)
def test_log_records_are_found_by_severity_logger_text_and_trace(store, search, found):
    store.put(
        a_log("cart", logger="shop.cart", fields={"tenant": "acme"}, trace_id=0xABC),
        a_log("Payment REFUSED", severity=17, at=START + 1),
    )
    assert store.bodies(search) == found


def test_an_error_without_a_trace_is_found_as_a_log_record(store):
    store.put(ErrorRecord("ValueError", "no such plan", timestamp=START))
    assert store.bodies(LogSearch(severity=17)) == ["ValueError: no such plan"]


def test_parts_of_a_trace_wait_for_its_end_and_it_is_read_whole_with_its_records(store):
    early = a_trace(a_span("query", root=False, at=START), trace_id=5, kept=UNDECIDED)
    lost = a_trace(a_span("query", root=False), trace_id=6, kept=UNDECIDED)
    root = a_trace(a_span("GET /", at=START + 1), trace_id=5, kept="error")
    store.put(early, lost, a_log("inside", trace_id=5))
    assert store.names() == []
    store.put(root, a_trace(trace_id=6, kept=""))
    store.put(a_trace(a_span("late", root=False, at=START + 2), trace_id=5, kept="error"))
    whole = store.reader.trace(f"{5:032x}")
    assert [span["name"] for span in whole["spans"]] == ["query", "GET /", "late"]
    assert (whole["reason"], [record["body"] for record in whole["logs"]]) == ("error", ["inside"])
    assert store.reader.trace(f"{6:032x}") is None
    assert store.names() == ["GET /"]


def test_parts_of_a_trace_that_is_not_kept_are_forgotten_and_not_counted_as_lost(store):
    store.put(a_trace(a_span("query", root=False), trace_id=5, kept=UNDECIDED))
    store.clock.advance(76)
    store.put()
    assert (store.writer._undecided_bytes, len(store.writer._undecided), store.writer.dropped) == (0, 0, {})


def test_undecided_parts_have_a_cap_and_what_it_costs_is_counted(store):
    parts = [a_trace(a_span("q", root=False), trace_id=number, kept=UNDECIDED) for number in range(1, 20_000)]
    store.put(*parts)
    assert store.writer._undecided_bytes <= 4 * 1024 * 1024
    assert store.writer.dropped["undecided"] == 19_999 - len(store.writer._undecided)


def test_a_question_stops_at_its_limit_and_goes_on_at_its_cursor(store):
    for number in range(10):
        store.put(a_trace(name=f"n{number}", at=START + number * SECOND))
    seen, cursor = [], None
    for _ in range(10):
        answer = store.reader.traces(TraceSearch(), Period(limit=3, cursor=cursor), 10)
        seen += [found["name"] for found in answer.found]
        cursor = answer.cursor
        if cursor is None:
            break
    assert seen == [f"n{number}" for number in reversed(range(10))]


def test_a_question_that_is_out_of_time_looks_through_one_block_and_says_how_many_there_are(store):
    for number in range(4):
        store.put(a_trace(name=f"n{number}", at=START + number * SECOND))
    answer = store.reader.traces(TraceSearch(name="none"), Period(), -1)
    assert (answer.looked, answer.blocks, answer.cursor is not None) == (1, 4, True)


def test_old_entries_go_and_the_file_stays_below_its_cap(tmp_path):
    store = Store(place_for(str(tmp_path), "shop"), cap=1_000_000, retention=3600)
    for number in range(60):
        text = os.urandom(20_000).hex()
        store.put(a_log(text, at=store.clock.wall()))
        store.clock.advance(31 if number < 59 else 3601)
    assert store.writer.path.stat().st_size < 1_000_000
    assert len(store.bodies(limit=100)) > 10
    store.put()
    assert store.bodies(limit=100) == []
    store.writer.close()


def test_files_of_the_dead_make_room_for_the_living(tmp_path):
    folder = place_for(str(tmp_path), "shop")
    dead, alive = Store(folder), Store(folder)
    for each in (dead, alive):
        each.put(*[a_log(os.urandom(20_000).hex()) for _ in range(5)])
    dead.writer.close()
    third = Store(folder, cap=300_000)
    third.put(a_log("mine"))
    assert sorted(databases(folder)) == sorted([alive.writer.path, third.writer.path])
    assert not remove_if_dead(alive.writer.path)
    for each in (alive, third):
        each.writer.close()


def test_the_folder_is_for_us_alone_and_never_committed(tmp_path):
    folder = place_for(str(tmp_path / ".insitu"), "a/../b shop")
    assert folder.parent == tmp_path / ".insitu"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder.parent / ".gitignore").read_text() == "*\n"


def test_where_nothing_can_be_written_a_temporary_folder_serves_and_a_warning_says_so(tmp_path, caplog, monkeypatch):
    guard._last_logged.clear()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "taken").write_text("a file")
    folder = place_for(str(tmp_path / "taken"), "shop")
    assert folder.is_relative_to(tmp_path)
    assert str(folder) in caplog.text


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("stranger", [".", "shop"])
def test_a_temporary_folder_of_somebody_else_is_not_used(tmp_path, monkeypatch, stranger):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "taken").write_text("a file")
    theirs = tmp_path / f"insitu-{os.getuid()}" / stranger
    theirs.mkdir(parents=True)
    os.chown(theirs, 12_345, 12_345)
    assert place_for(str(tmp_path / "taken"), "shop") is None


# --- FAULTS 53: a full disk, a locked and a damaged file, several processes ---


def test_a_damaged_file_is_replaced_and_its_readers_go_on(tmp_path, caplog):
    guard._last_logged.clear()
    store = Store(place_for(str(tmp_path), "shop"))
    store.put(a_trace(name="before"))
    path = store.writer.path
    store.writer._database._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.writer._database._connection.execute("PRAGMA shrink_memory")
    path.write_bytes(b"no database at all" * 1_000)
    store.put(a_trace(name="lost"))
    assert store.writer.dropped == {"unwritable": 1}
    assert caplog.text.count("the store cannot be written") == 1
    store.clock.advance(11)
    store.put(a_trace(name="after"))
    assert store.writer.path != path
    assert store.names() == ["after"]
    store.writer.close()


@pytest.mark.parametrize("part", ["hot", "rest", "ids"])
def test_a_damaged_block_costs_no_other_one(store, part):
    trace_id = 0xABC
    for number in range(3):
        spans = [a_span(f"n{number}", at=START + number * SECOND, own={"k": "v"})]
        store.put(a_trace(*spans, trace_id=trace_id))
    store.writer._database._connection.execute(f"UPDATE block SET {part} = x'00' WHERE id = 2")
    assert set(store.names(TraceSearch(key="k"))) >= {"n2", "n0"}
    assert [span["name"] for span in store.reader.trace(f"{trace_id:032x}")["spans"]] == ["n0", "n2"]


def test_a_locked_file_loses_what_comes_meanwhile_and_nothing_else(tmp_path):
    store = Store(place_for(str(tmp_path), "shop"))
    store.put(a_trace(name="before"))
    other = sqlite3.connect(store.writer.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.put(a_trace(name="lost"))
    other.execute("ROLLBACK")
    other.close()
    store.put(a_trace(name="after", at=START + 1))
    assert (store.names(), store.writer.dropped) == (["after", "before"], {"unwritable": 1})
    store.writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_full_disk_costs_what_comes_meanwhile_and_the_store_recovers(tmp_path):
    """The limit of a file's size answers a write as a full disk does: with an error after some bytes."""
    program = textwrap.dedent(
        """
        import os, resource, signal, sys
        from tests.store.test_store import Store
        from tests.store.facts import START, SECOND, a_log
        from insitu.store.folder import place_for
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = Store(place_for(sys.argv[1], "shop"))
        store.put(a_log("before"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        for number in range(20):
            store.put(a_log(os.urandom(20_000).hex(), at=START + number))
        lost = store.writer.dropped["unwritable"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        store.clock.advance(11)
        store.put(a_log("after", at=START + SECOND))
        assert store.bodies(limit=1_000)[0] == "after", store.bodies(limit=1_000)[0][:20]
        assert store.bodies(limit=1_000)[-1] == "before"
        assert len(store.bodies(limit=1_000)) + lost == 22, (len(store.bodies(limit=1_000)), lost)
        print("lost", lost)
        """
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 0


def test_what_a_killed_process_has_written_is_read_by_the_next_one(tmp_path):
    program = textwrap.dedent(
        """
        import sys, time
        from tests.store.test_store import Store
        from tests.store.facts import a_trace
        from insitu.store.folder import place_for
        store = Store(place_for(sys.argv[1], "shop"))
        store.put(a_trace(name="last words"))
        print("written", flush=True)
        sys.stdin.read()
        """
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "written\n"
        store = Store(place_for(str(tmp_path), "shop"))
        assert store.names() == ["last words"]  # while it lives
        process.send_signal(signal.SIGKILL)
        process.wait()
    store.put(a_trace(name="next", at=START + 1))
    assert store.names() == ["next", "last words"]
    store.writer.close()


def test_a_copy_can_be_taken_while_it_is_written(tmp_path):
    store = Store(place_for(str(tmp_path), "shop"))
    store.put(a_trace(name="one"))
    source = sqlite3.connect(f"{store.writer.path.as_uri()}?mode=ro", uri=True)
    copy = sqlite3.connect(tmp_path / "copy.db")
    source.backup(copy)
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert copy.execute("SELECT count(*) FROM block").fetchone() == (1,)
    for connection in (source, copy):
        connection.close()
    store.writer.close()


def test_tallies_are_written_with_the_blocks(store):
    tally = Tally(START, START + SECOND)
    tally.seen[REASONS[0]], tally.kept[REASONS[0]] = 10, 2
    store.tallies.append(tally)
    store.put()
    assert store.writer._database.read("SELECT * FROM tally") == [(START, START + SECOND, "error", 10, 2)]


# --- roll-ups ---


def test_requests_are_added_up_by_route_over_seconds_minutes_and_hours(store):
    began = store.clock.wall()
    for second in range(0, 3 * 3_600, 5):
        store.intervals.count("GET /a" if second % 2 else "GET /b", 0.1, store.clock.wall(), failed=second % 50 == 0)
        if second % 60 == 0:
            store.writer.write()
        store.clock.advance(5)
    store.writer.write()
    shown = store.reader.routes(began // HOUR * HOUR, store.clock.wall())
    assert {route["name"]: route["count"] for route in shown["routes"]} == {"GET /a": 1_080, "GET /b": 1_080}
    assert sum(count for _, count, _ in shown["series"]) == 2_160
    assert shown["routes"][0]["p99"] == pytest.approx(0.1, rel=0.01)
    last_minute = store.reader.routes(store.clock.wall() - 60 * SECOND, store.clock.wall())
    assert last_minute["interval"] == 10 * SECOND
    assert sum(count for _, count, _ in last_minute["series"]) == pytest.approx(12, abs=3)


def test_one_route_is_shown_with_its_durations_over_time(store):
    began = store.clock.wall()
    for minute in range(10):
        for _ in range(20):
            store.intervals.count("GET /a", 0.1 * (1 + minute), store.clock.wall(), failed=minute == 3)
            store.intervals.count("GET /b", 5.0, store.clock.wall(), failed=True)
        store.clock.advance(60)
        store.writer.write()
    shown = store.reader.routes(began, store.clock.wall(), "GET /a")
    assert [(route["name"], route["count"], route["errors"]) for route in shown["routes"]] == [("GET /a", 200, 20)]
    assert [(count, errors) for _, count, errors, *_ in shown["series"]] == [(20, 20 * (n == 3)) for n in range(10)]
    for minute, (_, _, _, p50, p95, p99) in enumerate(shown["series"]):
        assert [p50, p95, p99] == pytest.approx([0.1 * (1 + minute)] * 3, rel=0.02)
    assert store.reader.routes(began, store.clock.wall(), "GET /nothing")["routes"] == []


def test_damaged_durations_cost_their_own_route(store):
    began = store.clock.wall()
    for name in ("GET /a", "GET /b"):
        store.intervals.count(name, 0.1, began, failed=False)
    store.clock.advance(60)
    store.writer.write()
    store.writer.database()._connection.execute("UPDATE rollup SET durations = x'00' WHERE name = 'GET /a'")
    assert [route["name"] for route in store.reader.routes(began, store.clock.wall())["routes"]] == ["GET /b"]
    assert store.reader.routes(began, store.clock.wall(), "GET /a")["series"] == []
    assert store.reader.routes(began, store.clock.wall(), "GET /b")["series"] != []


def test_a_question_makes_way_for_others_while_it_is_looked_into(store):
    naps = []
    reader = Reader(
        store.writer.folder, store.writer.database, slices=Slices(iter(range(10_000)).__next__, naps.append)
    )
    for number in range(5):
        store.intervals.count(f"GET /{number}", 0.1, store.clock.wall(), failed=False)
        store.put(a_trace(name=f"n{number}"), a_log("said"))
        list(store.writer.sample([Family("queue", "gauge", [Point({}, number)])]))
        store.clock.advance(10)
    store.writer.write()
    for question in (
        lambda: reader.traces(TraceSearch(), Period()),
        lambda: reader.logs(LogSearch(), Period()),
        lambda: reader.routes(0, store.clock.wall()),
        lambda: reader.metric("queue", store.clock.wall() - 900 * SECOND, store.clock.wall()),
    ):
        naps.clear()
        question()
        assert len(naps) >= 5


def test_a_rate_is_that_of_the_time_since_the_first_request(store):
    store.clock.advance(3_600)
    for _ in range(6):
        for _ in range(50):
            store.intervals.count("GET /a", 0.1, store.clock.wall(), failed=False)
        store.clock.advance(10)
    store.writer.write()
    now = store.clock.wall()
    shown = store.reader.routes(now - 900 * SECOND, now)
    assert shown["routes"][0]["rate"] == pytest.approx(5.0, rel=0.2)
    assert now - shown["first"] < 80 * SECOND


def test_a_period_of_days_is_made_of_few_rows(store):
    began = store.clock.wall()
    for _ in range(2 * 24 * 6):
        store.intervals.count("GET /a", 0.1, store.clock.wall(), failed=False)
        store.clock.advance(600)
        store.writer.write()
    shown = store.reader.routes(began, store.clock.wall())
    assert shown["interval"] == 3_600 * SECOND
    assert shown["routes"][0]["count"] == pytest.approx(288, abs=7)
    kept = dict(store.writer._database.read("SELECT length, count(*) FROM rollup GROUP BY length"))
    assert kept[10 * SECOND] <= 8
    assert kept[60 * SECOND] <= 24 * 6 + 8


def test_what_an_ended_process_has_counted_is_added_to_what_a_living_one_counts(tmp_path):
    folder = place_for(str(tmp_path), "shop")
    for _ in range(2):
        store = Store(folder)
        store.intervals.count("GET /a", 0.1, store.clock.wall(), failed=True)
        store.clock.advance(10)
        store.writer.close()
    now = store.clock.wall()
    (route,) = store.reader.routes(now - 900 * SECOND, now)["routes"]
    assert (route["count"], route["errors"]) == (2, 2)


# --- one process after another ---


def test_the_next_process_goes_on_with_the_file_that_a_dead_one_has_left(tmp_path):
    first = Store(tmp_path)
    first.put(a_trace(name="first"))
    first.writer.close()
    second = Store(tmp_path)
    second.put(a_trace(name="second", at=START + 1))
    assert databases(tmp_path) == [second.writer.path]
    assert second.names() == ["second", "first"]
    second.writer.close()


def test_processes_at_once_have_a_file_each(tmp_path):
    stores = [Store(tmp_path) for _ in range(3)]
    for number, each in enumerate(stores):
        each.put(a_trace(name=f"n{number}"))
    assert len(databases(tmp_path)) == 3
    for each in stores:
        each.writer.close()
    last = Store(tmp_path)
    last.put(a_trace(name="last"))
    assert len(databases(tmp_path)) == 3
    last.writer.close()


def test_a_file_of_no_use_is_not_taken_over_again(tmp_path):
    (tmp_path / f"{'0' * 8}.db").write_bytes(b"no database" * 1_000)
    store = Store(tmp_path)
    store.put(a_trace(name="lost"))
    store.clock.advance(20)
    store.put(a_trace(name="kept"))
    assert store.names() == ["kept"]
    assert len(databases(tmp_path)) == 2
    store.writer.close()


@pytest.mark.parametrize("seed", range(20))
def test_what_processes_count_one_after_another_is_whole_at_any_length(tmp_path, seed):
    """Each ends as it should, or is killed; some take over within the same ten seconds, minute or hour."""
    chance = random.Random(seed)
    counted, now = 0, 0.0
    for _ in range(12):
        store = Store(tmp_path, after=now)
        for _ in range(chance.randrange(1, 8)):
            number = chance.randrange(1, 5)
            for _ in range(number):
                store.intervals.count("GET /", 0.1, store.clock.wall(), failed=False)
            took = chance.choice((1, 9, 31, 70, 1_000))
            store.clock.advance(took)
            now += took
            store.put(a_trace(name="GET /"))
            counted += number
        store.clock.advance(10)
        now += 10
        store.put(a_trace(name="GET /"))  # what is not written yet, a killed process takes with it
        if chance.random() < 0.5:
            store.writer.close()
        else:
            kill(store.writer)
    reader = Reader(tmp_path, lambda: None)
    begin = START // HOUR * HOUR  # seconds and minutes are kept for a while, hours for good
    whole = reader.routes(begin, begin + 24 * HOUR)["routes"]
    assert [route["count"] for route in whole] == [counted]
    assert len(databases(tmp_path)) == 1


def kill(writer):
    """Let go of a file as the kernel does where its process is killed."""
    writer._database.close()
    writer._lease.release()
