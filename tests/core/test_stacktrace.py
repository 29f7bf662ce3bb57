import itertools
import re
import time
import traceback
from types import CodeType

import pytest

from insitu.core import stacktrace
from insitu.core.records import ErrorRecord, Frame
from insitu.core.stacktrace import HEAD, LIMIT, MOST_CACHED, format_error

CARETS = re.compile(r"^[ |]*[~^]+[~^ ]*\n", re.MULTILINE)
ROOM = ValueError("no room")


def frames_of(error):
    return [Frame(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]


def record(error, relation=""):
    """The record of an exception, made by the plain rules that `traceback` follows."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    made = ErrorRecord(name, str(error), frames_of(error), relation=relation)
    if error.__cause__ is not None:
        made.chain.append(record(error.__cause__, "cause"))
    elif error.__context__ is not None and not error.__suppress_context__:
        made.chain.append(record(error.__context__, "context"))
    if isinstance(error, BaseExceptionGroup):
        made.chain.extend(record(member, "member") for member in error.exceptions)
    return made


def pythons_own(error):
    return CARETS.sub("", "".join(traceback.format_exception(error)))


def charge(amount):
    if amount < 0:
        raise ROOM.with_traceback(None)
    return int("x")


class ShopError(Exception):
    pass


def chained(how):
    try:
        charge(1)
    except ValueError as error:
        if how == "cause":
            raise ShopError("cannot charge\nsecond line") from error
        if how == "context":
            raise KeyError("plan")  # noqa: B904 the case
        raise ShopError from None


def caught(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error.with_traceback(error.__traceback__.tb_next)
    raise AssertionError("nothing was raised")


def dig(depth):
    return 1 / 0 if depth == 0 else dig(depth - 1)


def grouped():
    errors = [caught(charge, 1), ExceptionGroup("inner", [caught(chained, "cause"), TypeError()])]
    raise ExceptionGroup("several", errors)


def grouped_from_a_cause():
    try:
        charge(-1)
    except ValueError as error:
        raise ExceptionGroup("after", [ExceptionGroup("inner", [OSError("a")]), OSError("b")]) from error


@pytest.mark.parametrize(
    "error",
    [
        caught(charge, 1),
        caught(charge, -1),
        caught(chained, "cause"),
        caught(chained, "context"),
        caught(chained, "none"),
        caught(dig, 2),
        caught(dig, 3),
        caught(dig, 40),
        caught(grouped),
        caught(grouped_from_a_cause),
        ValueError("never raised"),
        ValueError(),
        caught(exec, compile("1/0", "<no such file>", "exec")),
    ],
    ids=repr,
)
def test_the_text_is_pythons_own_without_carets(error):
    assert format_error(record(error)) == pythons_own(error)


def test_a_flat_list_of_causes_reads_as_a_nested_one():
    error = caught(chained, "cause")
    nested = record(error)
    oldest = ErrorRecord("KeyError", "'a'", relation="context")
    nested.chain[0].chain.append(oldest)
    flat = ErrorRecord(nested.type, nested.message, nested.frames, chain=[*record(error).chain, oldest])
    assert format_error(flat) == format_error(nested)
    assert format_error(flat).startswith("KeyError: 'a'\n\nDuring handling of the above exception")


def test_frames_left_out_are_said_in_a_line_where_they_were():
    error = record(caught(dig, 200))
    shortened = ErrorRecord(
        "ZeroDivisionError", "x", [*error.frames[:HEAD], *error.frames[-2:]], omitted=len(error.frames) - HEAD - 2
    )
    lines = format_error(shortened).splitlines()
    at = lines.index(f"  [{shortened.omitted} frames omitted]")
    assert "in dig" in lines[at + 1]
    assert sum("in dig" in line for line in lines[at:]) == 2


def code_of(name):
    return compile("pass", name, "exec")


def test_a_chain_of_3000_takes_at_most_20_ms_and_64_kb():
    frames = [Frame(code_of(f"module_{number}.py"), number) for number in range(20)]

    def links():
        return [ErrorRecord("ValueError", "ä" * 40, frames, relation="context") for _ in range(3_000)]

    flat = ErrorRecord("LastError", "the newest", frames, chain=links())
    chained = links()
    for newer, older in itertools.pairwise(chained):
        newer.chain.append(older)
    nested = ErrorRecord("LastError", "the newest", frames, chain=chained[:1])
    for error in (flat, nested):  # CPU time: what others do on the machine does not count
        began = time.thread_time()
        text = format_error(error)
        took = time.thread_time() - began
        print(f"{took * 1e3:.2f} ms, {len(text.encode())} bytes")
        assert took <= 0.02
        assert len(text.encode()) <= LIMIT
        assert text.endswith("LastError: the newest\n")
        assert re.match(r"\[\d+ earlier exceptions omitted\]\n", text)


def test_a_chain_that_leads_back_to_itself_ends():
    first, second = ErrorRecord("A", "", relation="context"), ErrorRecord("B", "", relation="context")
    first.chain.append(second)
    second.chain.append(first)
    assert format_error(first).count("A\n") == 1


def test_a_wide_tree_of_groups_stays_below_the_limit():
    leaf = [ErrorRecord("E", "m" * 3_000, relation="member") for _ in range(20)]
    for _ in range(3):
        leaf = [ErrorRecord("G", "g" * 100, relation="member", chain=leaf) for _ in range(20)]
    began = time.perf_counter()
    text = format_error(ErrorRecord("Top", "t", chain=leaf))
    assert len(text.encode()) <= LIMIT
    assert "Top: t" in text
    assert re.search(r"and \d+ more\n", text)
    assert time.perf_counter() - began < 1.0


def test_one_huge_message_keeps_its_beginning_and_the_end():
    text = format_error(ErrorRecord("E", "a" + "€" * 50_000 + "z"), limit=1_000)
    assert text.startswith("E: a€")
    assert text.endswith("€z\n")
    assert "[... cut ...]" in text
    assert len(text.encode()) <= 1_000


def test_a_lone_surrogate_in_a_message_survives_the_cut():
    assert len(format_error(ErrorRecord("E", "\ud800" * 100_000)).encode()) <= LIMIT


def test_a_source_that_cannot_be_read_costs_only_its_line(monkeypatch):
    def broken(_name, _line):
        raise RuntimeError("somebody replaced linecache")

    monkeypatch.setattr(stacktrace.linecache, "getline", broken)
    code = code_of("unreadable.py")
    assert format_error(ErrorRecord("E", "", [Frame(code, 7)])) == (
        'Traceback (most recent call last):\n  File "unreadable.py", line 7, in <module>\nE\n'
    )


def test_the_cache_of_frames_is_bounded_and_keeps_code_apart():
    for number in range(MOST_CACHED + 10):
        assert f'"f{number}.py"' in format_error(ErrorRecord("E", "", [Frame(code_of(f"f{number}.py"), 1)]))
    assert 0 < len(stacktrace._frames) <= MOST_CACHED
    assert all(isinstance(code, CodeType) for code, _ in stacktrace._frames.values())
