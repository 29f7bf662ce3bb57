import os
import random
import shutil

import pytest

from insitu.core import guard
from insitu.core.records import Family, Point
from insitu.store import family, slots
from insitu.store.slots import Slot
from insitu.store.workers import Workers
from insitu.testing import FakeClock


class Worker:
    """A process that counts, as far as its metrics go: several of them share this one."""

    def __init__(self, service, clock):
        self.orders, self.told = 0, []
        self.start = lambda: Workers(service, clock, self.families, {"INSITU_INSTANCE": "shop"}, self.told)
        self.workers = self.start()

    def restart(self):
        self.workers.close()
        self.workers = self.start()
        return self

    def families(self):
        return [
            Family("orders", "counter", [Point({"plan": "pro"}, self.orders)]),
            Family("depth", "gauge", [Point({}, self.orders)]),
            Family("load", "gauge", [Point({}, 0.5)], merge="host"),
            *self.workers.collect(),
        ]

    def ordered(self, number=1):
        self.orders += number
        return self

    def publish(self):
        assert self.workers.publish(self.families())
        return self

    def kill(self):
        """End as SIGKILL does: nothing more is said, and the kernel lets go of the locks."""
        self.workers._slot.release()
        self.workers._slot = None

    def handles(self):
        return self.workers._slot._handle, self.workers._slot._names

    def sees(self, name="orders"):
        return {
            tuple(point.labels.values()): point.value
            for family in self.workers.merged()
            if family.name == name
            for point in family.points
        }


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def worker(tmp_path, clock):
    made = []

    def make():
        made.append(Worker(tmp_path, clock))
        return made[-1]

    yield make
    for each in made:
        each.workers.close()


def files(worker):
    return sorted(path.name for path in worker.workers.folder.iterdir())


def test_any_worker_sees_the_sum_of_all(worker):
    one, other = worker().ordered(3).publish(), worker().ordered(4).publish()
    assert one.sees() == other.sees() == {("pro",): 7}
    assert one.sees("depth") == {("0",): 3, ("1",): 4}
    assert one.sees("load") == {(): 0.5}
    assert one.sees("insitu.workers") == {(): 2}


def test_what_a_worker_counted_survives_it(worker):
    one, other = worker().ordered(3).publish(), worker().ordered(4).publish()
    other.kill()
    assert one.sees() == {("pro",): 7}
    assert worker().ordered(1).publish().sees() == {("pro",): 8}


def test_the_dead_become_one_and_files_do_not_pile_up(worker, clock):
    others = [worker().ordered(number).publish() for number in range(5)]
    living = worker().ordered(1).publish()
    assert len(files(living)) == 2 * 6 + 1
    for each in others:
        each.kill()
    clock.advance(20)
    assert living.publish().sees() == {("pro",): 11}
    assert files(living) == ["005.names", "005.val", "gate"]


def test_what_could_not_be_written_when_it_was_taken_over_is_taken_over_once(worker, clock, monkeypatch):
    dead, living = worker().ordered(3).publish(), worker().ordered(4).publish()
    dead.kill()
    with monkeypatch.context() as patched:
        patched.setattr(Slot, "write", raising(OSError("no room")))
        for _ in range(3):
            clock.advance(20)
            assert not living.workers.publish(living.families())
    for _ in range(3):
        clock.advance(20)
        assert living.sees() == {("pro",): 7}
    assert files(living) == ["001.names", "001.val", "gate"]


def test_what_a_worker_says_last_counts_though_it_is_being_read(worker, clock, monkeypatch):
    one, other = worker().ordered(3).publish(), worker().ordered(4).publish()
    read_bank = slots.read_bank

    def read_while_it_ends(handle):
        bank = read_bank(handle)
        if bank is not None and bank.values[0] == 4 and other.workers._slot is not None:
            other.ordered().workers.close()
        return bank

    clock.advance(60)
    monkeypatch.setattr(slots, "read_bank", read_while_it_ends)
    one.publish()
    assert other.workers._slot is None
    clock.advance(60)
    assert one.publish().sees() == {("pro",): 8}


def raising(error):
    def fail(*_):
        raise error

    return fail


def test_generations_of_workers_that_are_killed_lose_nothing_and_no_count_falls(worker, clock):
    chance = random.Random(7)
    living, total, seen = [worker()], 0, 0
    for _ in range(200):
        each = chance.choice(living)
        number = chance.randrange(5)
        each.ordered(number).publish()
        total += number
        if chance.random() < 0.3:
            living.append(worker().publish())
        if chance.random() < 0.3 and len(living) > 1:
            living.pop(chance.randrange(len(living))).kill()
        clock.advance(chance.choice((0.5, 20)))
        now = chance.choice(living).sees()["pro",]
        assert now == total >= seen
        seen = now
    for each in living[1:]:
        each.kill()
    clock.advance(20)
    assert living[0].sees() == {("pro",): total}
    assert len(files(living[0])) == 3


def test_a_service_that_is_one_process_has_no_files(tmp_path, clock, monkeypatch):
    alone = Workers(tmp_path, clock, list, {}, [])
    monkeypatch.setattr(family, "_topmost", os.getpid)
    alone.publish_in_time()
    alone.publish_at_once()
    assert not alone.are_several()
    assert list(tmp_path.iterdir()) == []


def test_a_child_begins_at_nothing_and_leaves_its_parents_slot_alone(worker):
    parent = worker().ordered(3).publish()
    child = worker()
    child.workers._slot = Slot.__new__(Slot)
    child.workers._slot._handle, child.workers._slot._names = map(os.dup, parent.handles())
    child.workers.after_fork()
    child.ordered(1).publish()
    assert parent.sees() == {("pro",): 4}
    assert parent.sees("insitu.workers") == {(): 2}


def test_what_takes_long_is_done_less_often(worker, clock, monkeypatch):
    one = worker().publish()
    said = []

    def publish(_):
        said.append(clock.monotonic())
        clock.advance(0.02)

    monkeypatch.setattr(one.workers, "publish", publish)
    for _ in range(10):
        one.workers.publish_in_time()
        clock.advance(0.5)
    assert len(said) == 3  # each takes 20 ms, and two seconds pass until the next


def test_a_folder_that_cannot_be_made_is_warned_of_and_the_worker_speaks_for_itself(
    tmp_path, clock, caplog, monkeypatch
):
    monkeypatch.setattr(guard, "_last_logged", {})  # a topic is warned of once a minute
    (tmp_path / "named-shop").write_bytes(b"")
    one = Worker(tmp_path, clock).ordered(3)
    assert one.sees() == {("pro",): 3}
    assert "cannot be shared" in caplog.text


def test_a_folder_that_is_wiped_is_made_anew(worker):
    one, other = worker().ordered(3).publish(), worker().ordered(4).publish()
    shutil.rmtree(one.workers.folder)
    assert one.sees() == {("pro",): 3}
    other.publish()
    assert one.sees() == {("pro",): 7}


def test_a_process_that_is_shut_down_and_started_again_counts_nothing_twice(worker, clock):
    other = worker().ordered(1).publish()
    one = worker().ordered(3).publish()
    one.restart().ordered(2).publish()
    assert one.sees() == {("pro",): 6}
    one.restart()
    clock.advance(20)
    other.publish()  # takes over what the other one has left
    one.ordered(1).publish()
    assert one.sees() == other.sees() == {("pro",): 7}
