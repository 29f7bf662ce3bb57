"""What `insitu.` offers is what `__all__` says, all of it documented."""

import inspect

import pytest

import insitu

PROMISED = {
    *("init", "instrument", "flush", "shutdown"),
    *("trace", "span", "trace_id", "bind"),
    *("counter", "gauge", "histogram"),
    *("log", "capture", "message"),
}


def public() -> set[str]:
    """The names a user sees: no underscore, none of our own rooms, nothing of `__future__`."""
    return {
        name
        for name, value in vars(insitu).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }


def test_all_names_exactly_what_is_public() -> None:
    assert set(insitu.__all__) == public()
    assert len(set(insitu.__all__)) == len(insitu.__all__)


def test_what_was_promised_is_there() -> None:
    assert set(insitu.__all__) >= PROMISED


@pytest.mark.parametrize("name", insitu.__all__)
def test_a_public_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(insitu, name))
