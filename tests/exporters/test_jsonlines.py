import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.core.records import LogRecord
from insitu.exporters.jsonlines import Exporter

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
SCALARS = st.one_of(
    TEXTS, st.integers(-(2**40), 2**40), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
NAMES = st.one_of(st.sampled_from(["level", "message", "service", "code.file.path", "order"]), TEXTS)


def record(body="order placed", fields=None, place=None):
    return LogRecord(1_800_000_000_123_456_789, 9, "INFO", "shop", body, fields, place=place)


def lines(*records):
    exporter = Exporter(os.devnull, "bench")
    (part,) = exporter.encode(records)
    assert part.items == len(records)
    return part.data.decode().removesuffix("\n").split("\n")


def test_a_line_has_the_time_first_and_the_place_last():
    (line,) = lines(record(fields={"order": 3}, place=("shop.py", 7, "place")))
    assert list(json.loads(line).items()) == [
        ("timestamp", "2027-01-15T08:00:00.123456Z"),
        ("level", "INFO"),
        ("logger", "shop"),
        ("service", "bench"),
        ("message", "order placed"),
        ("order", 3),
        ("code.file.path", "shop.py"),
        ("code.line.number", 7),
        ("code.function.name", "place"),
    ]


@pytest.mark.parametrize("place", [None, ("", 0, ""), ("a.py", 0, "")])
def test_what_is_not_known_of_a_place_is_left_out(place):
    (line,) = lines(record(place=place))
    assert {name for name in json.loads(line) if name.startswith("code.")} == (
        {"code.file.path"} if place and place[0] else set()
    )


def test_a_field_of_the_name_code_file_path_is_kept_where_no_place_is_known():
    (line,) = lines(record(fields={"code.file.path": "mine"}))
    assert json.loads(line)["code.file.path"] == "mine"


def test_records_of_many_loggers_and_places_have_lines_of_their_own():
    records = [record(place=(f"{number}.py", number + 1, "f")) for number in range(3_000)]
    parsed = [json.loads(line) for line in lines(*records)]
    assert [line["code.line.number"] for line in parsed] == list(range(1, 3_001))


@given(TEXTS, st.dictionaries(NAMES, SCALARS, max_size=6), st.one_of(st.none(), st.tuples(TEXTS, st.just(3), TEXTS)))
def test_every_record_is_one_line_of_json_whose_own_fields_stay(body, fields, place):
    (line,) = lines(record(body, fields, place))
    pairs = json.loads(line, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), "a name stands twice"
    expected = {**fields, "message": body, "level": "INFO", "logger": "shop", "service": "bench"}
    if place is not None:
        known = {"code.file.path": place[0], "code.line.number": place[1], "code.function.name": place[2]}
        expected.update({name: value for name, value in known.items() if value})
        expected = {name: value for name, value in expected.items() if name not in known or known[name]}
    assert {**dict(pairs), "timestamp": None} == {**expected, "timestamp": None}
