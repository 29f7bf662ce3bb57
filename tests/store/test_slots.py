import os
from array import array

import pytest

from insitu.core.records import Family
from insitu.store.layout import Metric
from insitu.store.slots import Readings, Slot, read_bank

ORDERS = Metric.of(Family("orders", "counter", []))


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def slot_with(path, **orders):
    slot = Slot(path)
    for name in orders:
        slot.layout.find(ORDERS, {"plan": name})
    slot.write(array("d", map(float, orders.values())), 7)
    return slot


def read(folder, *leased):
    return [
        ({series.labels["plan"]: each.bank.values[series.at] for series in each.layout.series}, each.live)
        for each in Readings().of(folder, leased)
    ]


def test_what_is_written_is_read_and_its_worker_is_known_to_live(folder):
    slot = slot_with(folder / "000.val", pro=1, free=2)
    assert read(folder) == [({"pro": 1, "free": 2}, True)]
    slot.release()
    assert read(folder) == [({"pro": 1, "free": 2}, False)]


def test_a_slot_has_one_worker(folder):
    slot = slot_with(folder / "000.val", pro=1)
    with pytest.raises(BlockingIOError):
        Slot(folder / "000.val")
    slot.release()
    Slot(folder / "000.val").release()


def test_the_next_worker_goes_on_where_the_last_one_ended(folder):
    slot_with(folder / "000.val", pro=1).release()
    slot = Slot(folder / "000.val")
    slot.resume(set())
    slot.layout.find(ORDERS, {"plan": "free"})
    slot.write(array("d", [slot.base[0] + 5, 2.0]), 8)
    assert read(folder, slot.path) == [({"pro": 6, "free": 2}, True)]
    slot.release()


def test_numbers_that_are_in_another_slot_already_are_left_out_and_not_resumed(folder):
    dead = slot_with(folder / "000.val", pro=1)
    dead.release()
    other = slot_with(folder / "001.val", pro=3)
    other.absorbed = [dead.birth]
    other.write(array("d", [4.0]), 8)
    assert read(folder) == [({"pro": 4}, True)]
    assert other.has_all_of(dead.path)
    begun = Slot(dead.path)
    begun.resume({dead.birth})
    assert not begun.base
    begun.release()
    other.release()


def test_a_write_that_was_cut_off_costs_that_write_alone(folder):
    slot = slot_with(folder / "000.val", pro=1)
    slot.write(array("d", [2.0]), 8)
    last = 4096 * (slot._sequence % 2)
    with slot.path.open("r+b") as file:
        file.seek(last + 60)
        file.write(b"\xff\xff")
    assert read(folder) == [({"pro": 1}, True)]
    slot.release()


def test_a_slot_that_grows_is_readable_at_any_size(folder):
    slot = Slot(folder / "000.val")
    for number in range(3_000):
        slot.layout.find(ORDERS._replace(name=f"orders{number // 1_000}"), {"plan": str(number)})
        if number % 300 == 299:
            slot.write(array("d", map(float, range(number + 1))), number)
            assert read(folder)[0][0][str(number)] == number
    slot.release()


def test_a_damaged_slot_is_counted_and_costs_the_others_nothing(folder):
    slot_with(folder / "000.val", pro=1).release()
    slot_with(folder / "001.val", pro=2).release()
    (folder / "000.names").write_bytes(b"what?\n" * 20)
    readings = Readings()
    assert [each.bank.values[0] for each in readings.of(folder, ())] == [2]
    assert readings.damaged == {folder / "000.val"}


def test_a_slot_of_which_no_bank_is_whole_says_so(folder):
    slot = slot_with(folder / "000.val", pro=1)
    os.pwrite(slot._handle, b"\xff" * 40, 4096 + 56)
    with pytest.raises(ValueError, match="no bank is whole"):
        read_bank(slot._handle)
    slot.release()


def test_names_that_a_killed_worker_had_begun_are_overwritten(folder):
    slot_with(folder / "000.val", pro=1).release()
    with (folder / "000.names").open("ab") as names:
        names.write(b'["s",0,{"pl')
    slot = Slot(folder / "000.val")
    slot.resume(set())
    slot.layout.find(ORDERS, {"plan": "free"})
    slot.write(array("d", [1.0, 2.0]), 8)
    assert read(folder) == [({"pro": 1, "free": 2}, True)]
    slot.release()
