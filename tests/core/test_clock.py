import os
import random
import threading
import time
from datetime import datetime

from insitu.core import clock
from insitu.core.clock import SYSTEM
from insitu.testing import FakeClock


def test_wall_time_is_the_hosts():
    assert abs(SYSTEM.wall() / 1e9 - datetime.now().timestamp()) < 1.0


def test_monotonic_time_never_goes_back():
    readings = [SYSTEM.monotonic() for _ in range(10_000)]
    assert readings == sorted(readings)
    assert readings[-1] > readings[0]


def test_cpu_time_is_the_calling_threads_own():
    spent = []

    def burn():
        began = SYSTEM.cpu()
        while SYSTEM.cpu() - began < 20_000_000:
            pass
        spent.append(SYSTEM.cpu() - began)

    before, whole = SYSTEM.cpu(), clock.process_cpu()
    thread = threading.Thread(target=burn)
    thread.start()
    thread.join()
    assert spent[0] >= 20_000_000
    assert SYSTEM.cpu() - before < 20_000_000
    assert clock.process_cpu() - whole >= 20_000_000


def test_ids_are_in_range_never_zero_and_do_not_repeat(monkeypatch):
    assert all(0 < clock.new_span_id() < 2**64 and 0 < clock.new_trace_id() < 2**128 for _ in range(1_000))
    assert len({clock.new_span_id() for _ in range(100_000)}) == 100_000
    monkeypatch.setattr(clock, "random_bits", lambda _bits: 0)
    assert clock.new_span_id() == clock.new_trace_id() == 1


def test_an_application_that_seeds_its_random_numbers_gets_new_ids_all_the_same():
    random.seed(7)
    first = clock.new_trace_id()
    random.seed(7)
    assert clock.new_trace_id() != first


def test_our_ids_do_not_shift_the_applications_random_numbers():
    random.seed(7)
    expected = random.random()
    random.seed(7)
    clock.new_trace_id()
    clock.reseed()
    assert random.random() == expected


def test_a_reseeded_generator_goes_another_way():
    clock._random.seed(7)
    expected = clock._random.getrandbits(128)
    clock._random.seed(7)
    clock.reseed()
    assert clock.new_trace_id() != expected


def test_a_fake_clock_moves_only_when_told():
    fake = FakeClock()
    wall, monotonic = fake.wall(), fake.monotonic()
    time.sleep(0)
    assert (fake.wall(), fake.monotonic(), fake.cpu()) == (wall, monotonic, monotonic)
    fake.advance(1.5)
    assert (fake.wall() - wall, fake.monotonic() - monotonic) == (1_500_000_000, 1_500_000_000)
    fake.set_back(3_600)
    assert fake.wall() - wall == 1_500_000_000 - 3_600_000_000_000
    assert fake.monotonic() - monotonic == 1_500_000_000


def test_a_fake_clock_may_tick():
    fake = FakeClock(tick=10)
    assert [fake.monotonic() for _ in range(3)] == [10, 20, 30]


def test_children_make_ids_of_their_own():
    """FAULTS 16: what was seeded before a fork must not give two processes one series of ids."""
    reader, writer = os.pipe()
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os.write(writer, f"{clock.new_trace_id():032x}\n".encode())
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        ids = set(stream.read().split()) | {f"{clock.new_trace_id():032x}"}
    assert len(ids) == 4
