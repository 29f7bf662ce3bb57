"""Options: argument > INSITU_* > OTEL_* > file > default, and nothing that is given can make `read` raise."""

import json
import logging
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu import config
from insitu.core import guard

# For each option: five values that differ, as (text for a variable or an argument, what is read).
NUMBERS = [(str(number), number) for number in (7, 8, 9, 10, 11)]
SHARES = [(str(share), share) for share in (0.1, 0.2, 0.3, 0.4, 0.5)]
TEXTS = [(text, text) for text in ("one", "two", "three", "four", "five")]
LISTS = [(f"{text}, x", (text, "x")) for text, _ in TEXTS]
PAIRS = [(f"k={text},x=a%20b", {"k": text, "x": "a b"}) for text, _ in TEXTS]
FLAGS = [("yes", True), ("off", False), ("true", True), ("0", False), ("1", True)]
SIZES = [("1MB", 10**6), ("2 mb", 2 * 10**6), ("3000000", 3 * 10**6), ("1.5gb", 15 * 10**8), ("2GB", 2 * 10**9)]
PATHS = [("/ops", "/ops"), ("none", ""), ("ops/apm/", "/ops/apm"), ("/a-b", "/a-b"), ("x", "/x")]
BUDGETS = [("1%", 0.01), ("0.5%", 0.005), ("0.02", 0.02), ("none", None), ("100 %", 1.0)]
TIMES = [("90", 90), ("2m", 120), ("1h", 3_600), ("1.5d", 129_600), ("7d", 604_800)]
VALUES = {
    config._folder: TEXTS,
    config._bytes: SIZES,
    config._seconds: TIMES,
    config._text: TEXTS,
    str: TEXTS,
    config._share: SHARES,
    config._count: NUMBERS,
    config._names: LISTS,
    config._patterns: LISTS,
    config._pairs: PAIRS,
    config._flag: FLAGS,
    config._path: PATHS,
    config._budget: BUDGETS,
    config._duration: [("100ms", 0.1), ("0.5", 0.5), ("2s", 2.0), ("1.5 s", 1.5), ("5ms", 0.005)],
}
BAD = {
    config._bytes: "1kb",
    config._seconds: "soon",
    config._share: "7",
    config._count: "-1",
    config._flag: "perhaps",
    config._path: "/a b",
    config._budget: "120%",
    config._duration: "0s",
    config._pairs: "no separator",
}
every_option = pytest.mark.parametrize("setting", config.SETTINGS, ids=lambda setting: setting.name)


@pytest.fixture(autouse=True)
def _each_warning_is_new():
    guard._last_logged.clear()


def value(setting, arguments, environ, folder):
    options = config.read(arguments, environ, folder)
    return getattr(getattr(options, setting.room), setting.option)


def file_with(folder, setting, text):
    (folder / "insitu.toml").write_text(f"{setting.name} = {json.dumps(text)}\n")


@every_option
def test_the_strongest_source_wins_and_then_the_next(setting, tmp_path):
    (argument, first), *rest = VALUES[setting.read]
    environ, expected = {}, []
    for variable, (text, read) in zip(setting.variables, rest, strict=False):
        environ[variable] = text
        expected.append(read)
    file_text, in_file = VALUES[setting.read][-1]
    file_with(tmp_path, setting, file_text)

    assert value(setting, {setting.name: argument}, environ, tmp_path) == first
    for variable, read in zip(setting.variables, expected, strict=True):
        unsaid = {} if setting.name in config._NONE_IS_A_CHOICE else {setting.name: None}
        assert value(setting, unsaid, environ, tmp_path) == read
        del environ[variable]
    assert value(setting, {}, environ, tmp_path) == in_file
    (tmp_path / "insitu.toml").unlink()
    assert value(setting, {}, environ, tmp_path) == setting.default


@pytest.mark.parametrize("name", config._NONE_IS_A_CHOICE)
def test_none_as_an_argument_switches_off_what_can_be_off(name, tmp_path):
    setting = next(each for each in config.SETTINGS if each.name == name)
    environ = dict.fromkeys(setting.variables, "something")
    assert value(setting, {name: None}, environ, tmp_path) == ""


@every_option
def test_an_empty_variable_is_not_set(setting, tmp_path):
    environ = dict.fromkeys(setting.variables, "")
    assert value(setting, {}, environ, tmp_path) == setting.default


@pytest.mark.parametrize(
    "setting", [each for each in config.SETTINGS if each.read in BAD], ids=lambda setting: setting.name
)
def test_a_bad_value_warns_names_the_fix_and_falls_back(setting, tmp_path, caplog):
    text, read = VALUES[setting.read][-1]
    file_with(tmp_path, setting, text)
    assert value(setting, {}, {setting.variables[0]: BAD[setting.read]}, tmp_path) == read
    (warning,) = caplog.messages
    assert setting.variables[0] in warning
    assert ": give " in warning


def test_a_bad_argument_falls_back_to_the_environment(tmp_path, caplog):
    assert config.read({"sample": "lots"}, {"INSITU_SAMPLE": "0.5"}, tmp_path).tracing.sample == 0.5
    assert caplog.messages == [
        "insitu: init(sample=...)=lots is not valid: give a number from 0 to 1. Until then it is ignored"
    ]


def test_a_token_is_not_repeated_in_a_warning(tmp_path, caplog):
    config.read({"token": 12345}, {}, tmp_path)
    assert caplog.messages == ["insitu: init(token=...) is not valid: give a text. Until then it is ignored"]


def test_an_unknown_option_is_named_with_those_there_are(tmp_path, caplog):
    (tmp_path / "insitu.toml").write_text("sampel = 1\n")
    config.read({"servce": "shop"}, {}, tmp_path)
    assert [re.search(r"no option (\w+)", text)[1] for text in caplog.messages] == ["servce", "sampel"]
    assert all("sample, sampler" in text for text in caplog.messages)


def test_insitu_toml_is_read_before_pyproject(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.insitu]\nservice = "of pyproject"\nsample = 0.5\n')
    assert config.read({}, {}, tmp_path).service.name == "of pyproject"
    (tmp_path / "insitu.toml").write_text('service = "of insitu"\n')
    chosen = config.read({}, {}, tmp_path)
    assert (chosen.service.name, chosen.tracing.sample) == ("of insitu", 1.0)


@pytest.mark.parametrize(
    "text", ["service = ", "\xff", "tool = 5", "[tool]\ninsitu = 5", "[" * 5000, "a = " + "[" * 5000, ""]
)
def test_a_broken_file_is_passed_over(tmp_path, text):
    for name in config.FILES:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert config.read({}, {}, tmp_path).tracing == config.TracingOptions()


def test_a_file_that_may_not_be_read_warns(tmp_path, caplog):
    (tmp_path / "insitu.toml").write_bytes(b"\xff\xfe")
    config.read({}, {}, tmp_path)
    assert len(caplog.messages) == 1
    assert "insitu.toml cannot be read" in caplog.messages[0]


@pytest.mark.parametrize("variable", config.SWITCHES)
@pytest.mark.parametrize(("text", "off"), [("1", True), ("TRUE", True), ("0", False), ("false", False), ("", False)])
def test_the_switches_stand_above_every_other_source(tmp_path, variable, text, off):
    assert config.read({}, {variable: text}, tmp_path).process.disabled is off


def test_the_service_is_named_by_resource_attributes_where_no_option_says_otherwise(tmp_path):
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,service.version=2,deployment.environment.name=qa,team=x"}
    service = config.read({}, environ, tmp_path).service
    assert (service.name, service.version, service.environment, service.attributes["team"]) == ("a", "2", "qa", "x")
    assert config.read({}, environ | {"OTEL_SERVICE_NAME": "b"}, tmp_path).service.name == "b"


def test_a_list_may_be_a_list_and_none_is_the_empty_one(tmp_path):
    assert config.read({"exclude": ["/a", "/b"]}, {}, tmp_path).tracing.exclude == ("/a", "/b")
    assert config.read({}, {"INSITU_EXPORTERS": "none"}, tmp_path).export.exporters == ()
    assert config.read({}, {"OTEL_PROPAGATORS": "none"}, tmp_path).tracing.propagators == ()


def test_a_comma_inside_of_a_pattern_does_not_cut_it(tmp_path):
    environ = {"INSITU_REDACT_PATTERNS": r"EMP-\d{1,5},(?:A|B),[x,y]z"}
    assert config.read({}, environ, tmp_path).redact.patterns == (r"EMP-\d{1,5}", "(?:A|B)", "[x,y]z")


def test_one_bad_pattern_does_not_leave_in_the_open_what_the_others_hide(tmp_path, caplog):
    assert config.read({"redact_patterns": ["(", r"EMP-\d+", "x*"]}, {}, tmp_path).redact.patterns == (r"EMP-\d+",)
    assert len(caplog.messages) == 2


class Hostile:
    def __str__(self):
        raise RuntimeError

    __float__ = __int__ = __iter__ = __len__ = __bool__ = __repr__ = __eq__ = __hash__ = __str__


ANYTHING = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.binary(max_size=8),
    st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    st.builds(Hostile),
    st.lists(st.builds(Hostile), min_size=1, max_size=2),
)
NAMES = [setting.name for setting in config.SETTINGS]
VARIABLES = sorted({variable for setting in config.SETTINGS for variable in setting.variables})


@settings(max_examples=300, deadline=None)
@given(
    arguments=st.dictionaries(st.sampled_from([*NAMES, "other"]), ANYTHING, max_size=6),
    environ=st.dictionaries(st.sampled_from([*VARIABLES, *config.SWITCHES]), st.text(max_size=20), max_size=6),
)
def test_nothing_that_is_given_makes_it_raise(arguments, environ):
    logging.getLogger("insitu").disabled = True
    try:
        chosen = config.read(arguments, environ, config.Path(os.devnull))
    finally:
        logging.getLogger("insitu").disabled = False
    assert 0 <= chosen.tracing.sample <= 1
    assert isinstance(chosen.service.name, str)
    assert chosen.tracing.attributes >= 0


def test_every_value_can_say_who_set_it(tmp_path):
    file_with(tmp_path, next(each for each in config.SETTINGS if each.name == "token"), "abc")
    found = {
        each.setting.name: (each.value, each.source)
        for each in config.values_of({"version": "2"}, {"OTEL_SERVICE_NAME": "shop"}, tmp_path)
    }
    assert found["service"] == ("shop", "OTEL_SERVICE_NAME")
    assert found["version"] == ("2", "init(version=...)")
    assert found["token"] == ("abc", "token in the configuration file")
    assert found["sample"] == (1.0, "default")
