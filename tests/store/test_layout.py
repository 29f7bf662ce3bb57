import pytest
from hypothesis import given
from hypothesis import strategies as some

from insitu.core.records import Family, Point, Scope
from insitu.store.layout import Layout, Metric, halves, whole

ORDERS = Metric.of(Family("orders", "counter", [], "{order}", "What was ordered.", Scope("shop", "1", "", (("a", 1),))))
TOOK = Metric.of(Family("took", "histogram", [], "s", bounds=(0.1, 1.0)))
MODE = Metric.of(Family("mode", "gauge", [], merge="last"))


def written(layout):
    data, layout.unwritten = layout.unwritten, b""
    return data


def test_who_reads_the_list_finds_every_series_where_its_writer_put_it():
    mine = Layout()
    made = [mine.find(ORDERS, {"plan": "pro"}), mine.find(TOOK, {}), mine.find(MODE, {}), mine.find(ORDERS, {})]
    mine.exemplar(made[1], 2)
    theirs = Layout(written(mine))
    assert theirs.series == made
    assert [series.at for series in made] == [0, 1, 5, 8]  # a histogram of three buckets and a sum, a gauge and when
    assert made[1].exemplars == {2: 9}
    assert theirs.cells == mine.cells == 18


def test_a_series_has_one_place_however_often_it_is_asked_for():
    layout = Layout()
    first = layout.find(ORDERS, {"plan": "pro", "region": "eu"})
    assert layout.find(ORDERS, {"region": "eu", "plan": "pro"}) is first
    assert layout.find(TOOK, {"plan": "pro", "region": "eu"}) is not first


def test_further_lines_go_on_where_the_first_ones_ended():
    mine = Layout()
    mine.find(ORDERS, {"plan": "pro"})
    theirs = Layout(written(mine))
    mine.find(ORDERS, {"plan": "free"})
    theirs.read(written(mine))
    assert theirs.series == mine.series


@pytest.mark.parametrize("line", [b"{}", b"[1", b'["s",7,{}]', b'["m","x"]', b'["x",0,0]', b"\xff", b'["s","a",{}]'])
def test_a_line_that_is_none_is_an_error_that_can_be_counted(line):
    with pytest.raises(ValueError, match=r"."):
        Layout(line + b"\n")


@given(some.dictionaries(some.text(max_size=5), some.text(max_size=5) | some.booleans() | some.integers(0, 9)))
def test_any_labels_come_back(labels):
    mine = Layout()
    mine.find(ORDERS, labels)
    assert Layout(written(mine)).series[0].labels == labels


@given(some.integers(0, 2**128 - 1))
def test_a_long_number_survives_in_pieces(number):
    assert whole(halves(number, 4)) == number


def test_a_point_of_a_gauge_knows_when_it_was_set():
    assert Point({}, 1).time == 0
