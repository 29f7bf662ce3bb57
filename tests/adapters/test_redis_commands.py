"""What a command says of itself, and what it keeps to itself."""

import pytest

from insitu.adapters import redis_commands as commands


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("GET", "user:1"), ("GET", "GET user:1")),
        (("SET", "user:1", "secret", "EX", 60), ("SET", "SET user:1 ? ? ?")),
        (("set", b"user:1", b"secret"), ("set", "set user:1 ?")),
        ((b"SET", 7, 1.5), ("SET", "SET 7 ?")),
        (("SET user:1 secret",), ("SET", "SET user:1 ?")),
        (("MGET", "a", "b", "c"), ("MGET", "MGET a ? ?")),
        (("SET", memoryview(b"a"), "secret"), ("SET", "SET ? ?")),
        (("FLUSHALL",), ("FLUSHALL", "FLUSHALL")),
        (("CONFIG GET", "maxmemory"), ("CONFIG GET", "CONFIG GET maxmemory")),
        (("CONFIG", "SET", "requirepass", "secret"), ("CONFIG SET", "CONFIG SET requirepass ?")),
        (("CLIENT",), ("CLIENT", "CLIENT")),
        (("XINFO STREAM", "s"), ("XINFO STREAM", "XINFO STREAM s")),
        (("EVAL", "return 'secret'", 1, "key"), ("EVAL", "EVAL ? ? ?")),
        (("SCRIPT LOAD", "return 'secret'"), ("SCRIPT LOAD", "SCRIPT LOAD ?")),
        (("ECHO", "secret"), ("ECHO", "ECHO ?")),
        (("AUTH", "me", "secret"), ("AUTH", "AUTH")),
        (("auth secret",), ("auth", "auth")),
        (("HELLO", 3, "AUTH", "me", "secret"), ("HELLO", "HELLO")),
        (("ACL SETUSER", "me", ">secret"), ("ACL SETUSER", "ACL SETUSER")),
        (("PUBLISH", "news", "secret"), ("PUBLISH", "PUBLISH news ?")),
    ],
)
def test_a_command_is_told_with_its_key_and_without_its_values(command, expected):
    assert commands.describe(command) == expected


@pytest.mark.parametrize(
    "command", [("MSET", *range(100_000)), ("SET", "k" * 10**6, "v"), (b"SET", b"\xff" * 10**6, b"v"), ("n" * 10**6,)]
)
def test_however_long_a_command_is_its_text_is_short(command):
    name, text = commands.describe(command)
    assert len(name) <= 64
    assert len(text) <= 64 + commands.KEY_LENGTH + 70


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([("SET", "a", 1), ("GET", "a")], ("PIPELINE", "SET a ?\nGET a")),
        ([("SET", "a", 1), ("SET", "b", 1)], ("PIPELINE SET", "SET a ?\nSET b ?")),
        ([("SET a secret",), ("SET a secret",)], ("PIPELINE SET", "SET a ?\nSET a ?")),
        ([], ("PIPELINE", "")),
    ],
)
def test_commands_that_are_alike_lend_the_pipeline_their_name(sent, expected):
    assert commands.describe_all("PIPELINE", sent) == expected


@pytest.mark.parametrize(
    ("exchanged", "expected"),
    [
        ([(("GET", "a"), b"")], (1, 0)),
        ([(("GET", "a"), None)], (0, 1)),
        ([(("MGET", "a", "b"), [None, b"1"])], (1, 1)),
        ([(("EXISTS", "a", "b", "c"), 1)], (1, 2)),
        ([(("HGETALL", "a"), {})], (0, 1)),
        ([(("GET", "a"), b"1"), (("GET", "b"), ValueError()), (("SET", "b", 1), None)], (1, 0)),
        ([], (0, 0)),
    ],
)
def test_what_was_there_is_told_from_what_was_not(exchanged, expected):
    assert commands.found(exchanged) == expected
