"""Errors are one group when they are one problem, and only then."""

import contextlib
import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import insitu
from insitu.analysis import grouping
from insitu.core.records import ErrorRecord, Frame
from insitu.signals.errors import describe
from insitu.testing import recording

SOURCE = Path(__file__).with_name("failures.py").read_text()
WORDS = ["word" + "x" * number for number in range(1, 1_100)]
VALUES = ("lamp", "no stock", "table 7", "a2b4c6d8-0000-4000-8000-1f2e3d4c5b6a", "Ada Lovelace")
FRAMEWORK = """
import asyncio, threading

def call(function, arguments):
    function(*arguments)

def in_a_thread(function, arguments):
    raised = []
    def run():
        try:
            function(*arguments)
        except BaseException as error:
            raised.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise raised[0]
"""


def compiled(source, file):
    namespace = {"__name__": Path(file).stem}
    exec(compile(source, file, "exec"), namespace)
    return namespace


@pytest.fixture
def framework(tmp_path):
    """What calls the application, and is none of it."""
    made = compiled(FRAMEWORK, str(tmp_path / "lib/site-packages/framework.py"))
    return [made["call"], made["in_a_thread"]]


@pytest.fixture
def releases(tmp_path, monkeypatch):
    """The same shop, unpacked in other folders, with other lines."""
    made = []
    for number, moved in enumerate(("", "# a comment\n\n\n# and more\n" * 7)):
        root = str(tmp_path / f"releases/{number}")
        monkeypatch.setattr(sys, "path", [*sys.path, root])
        made.append(compiled(moved + SOURCE, f"{root}/shop/failures.py"))
    return made


def raised(call, function, arguments):
    try:
        call(function, arguments)
    except BaseException as error:
        # As it is caught where the framework ends: nothing of these tests is in the traceback.
        error.__traceback__ = error.__traceback__.tb_next
        return describe(error)
    raise AssertionError(f"{function} raises nothing")


def pairs(labels):
    return {(a, b) for a, b in itertools.combinations(range(len(labels)), 2) if labels[a] == labels[b]}


def test_a_group_is_a_problem(releases, framework):
    problems, found = [], []
    for release, call, value in itertools.product(releases, framework, VALUES):
        for function, which in release["PROBLEMS"]:
            arguments = (value, which) if which else (value,)
            problems.append((function.__name__, which))
            found.append(grouping.fingerprint(raised(call, function, arguments)))
    truly, together = pairs(problems), pairs(found)
    precision, recall = len(truly & together) / len(together), len(truly & together) / len(truly)
    print(f"{len(found)} errors of {len(set(problems))} problems, {len(set(found))} groups:", end=" ")
    print(f"precision {precision:.3f}, recall {recall:.3f}")
    assert len(found) >= 150
    assert len(set(problems)) >= 40
    assert precision >= 0.98
    assert recall >= 0.95


def print_of(message="text", kind="LookupError", frames=()):
    return grouping.fingerprint(ErrorRecord(kind, message, frames))


@given(st.text(max_size=200), st.text(max_size=50))
def test_any_error_has_a_fingerprint_that_stays(message, kind):
    found = print_of(message, kind)
    assert len(bytes.fromhex(found)) == 8
    grouping._groups.clear()
    assert print_of(message, kind) == found


def test_without_frames_the_words_of_the_message_tell_and_its_numbers_do_not():
    assert print_of("job 12 of 9f3c was lost") == print_of("job 7 of 0000 was lost") != print_of("job 7 was kept")


def test_shapes_without_end_take_no_room_without_end():
    first = print_of(kind="Error0")
    for number in range(3_000):
        print_of(kind=f"Error{number}")
    assert len(grouping._groups) <= 1_000
    deep = describe(refused()).frames * 50
    for number in range(1_000):
        print_of(kind=f"Deep{number}", frames=deep)
    assert len(grouping._groups) * len(deep) <= 50_000
    assert print_of(kind="Error0") == first


def test_a_function_of_many_words_is_remembered_in_part():
    code = compile(
        "def raises():\n raise ValueError(" + repr(" ".join(WORDS)) + ")", "/shop/long.py", "exec"
    ).co_consts[0]
    print_of(frames=[Frame(code, 2)])
    assert len(grouping._about(code)[3]) < 1_000 < len(WORDS)


def refused():
    try:
        refuse("lamp")
    except LookupError as error:
        return error


def refuse(product):
    raise LookupError(f"no price for {product}")


def test_an_error_has_its_fingerprint_wherever_it_is_told():
    with recording() as recorded:
        for product in ("lamp", "table"):
            with contextlib.suppress(LookupError), insitu.span("order"):
                refuse(product)
        insitu.capture(KeyError("stock"))
        try:
            raise LookupError("logged")
        except LookupError:
            insitu.log.exception("an order has failed")
        first, second = (span.attributes["insitu.fingerprint"] for span in recorded.spans)
        assert first == second == recorded.spans[0].events[0].error.fingerprint
        told = {first, *(error.fingerprint for error in recorded.errors), recorded.logs[0].error.fingerprint}
    assert len(told) == 3
    assert "" not in told
