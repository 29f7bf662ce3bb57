"""What a command to Redis says: its name, its text without values, and whether what it read was there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TEXT_LENGTH: Final = 1_024
KEY_LENGTH: Final = 256
_NAME_LENGTH: Final = 64
_MOST_VALUES: Final = 32

_OF_TWO_WORDS: Final = frozenset(
    "ACL CLIENT CLUSTER COMMAND CONFIG DEBUG FUNCTION LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT SENTINEL SLOWLOG "
    "XGROUP XINFO".split()
)
_SECRET: Final = frozenset({"AUTH", "HELLO", "ACL"})
_WITHOUT_A_KEY: Final = frozenset(
    {"ECHO", "PING", "EVAL", "EVAL_RO", "SCRIPT LOAD", "FUNCTION LOAD", "FUNCTION RESTORE"}
)
"""What stands first is no key nor a name, but a value or a program."""


def describe(command: Sequence[Any]) -> tuple[str, str]:
    """Return the name of a command (`CONFIG GET`), and its text (`SET user:1 ?`).

    The first argument stays, as it is a key nearly always; each one behind it becomes `?`.

    Args:
        command: its words, as redis-py takes them: those of its name in one text or apart, even with arguments.

    """
    words = [*_readable(command[0]).split(), *command[1:]]
    of_name = 2 if len(words) > 1 and words[0].upper() in _OF_TWO_WORDS else 1
    name = " ".join(map(_readable, words[:of_name]))[:_NAME_LENGTH]
    values, known = len(words) - of_name, name.upper()
    if not values or known.partition(" ")[0] in _SECRET:
        return name, name
    if known in _WITHOUT_A_KEY:
        return name, name + _marks(values)
    return name, f"{name} {_readable(words[of_name])[:KEY_LENGTH]}{_marks(values - 1)}"


def _readable(word: object) -> str:
    if isinstance(word, str):
        return word
    if isinstance(word, bytes):
        return word[:TEXT_LENGTH].decode("utf-8", "replace")
    return str(word) if isinstance(word, int | float) else "?"


def _marks(values: int) -> str:
    return " ?" * values if values <= _MOST_VALUES else " ?" * _MOST_VALUES + " …"


def describe_all(kind: str, commands: Sequence[Sequence[Any]]) -> tuple[str, str]:
    """Return the name of several commands (`MULTI`, or `MULTI SET` where all are alike), and their text.

    Args:
        kind: MULTI or PIPELINE.
        commands: each as for `describe`; their texts stand on lines of their own, as many as there is room for.

    """
    lines: list[str] = []
    room = TEXT_LENGTH
    for command in commands:
        line = describe(command)[1]
        room -= len(line) + 1
        if room < 0:
            lines.append("…")
            break
        lines.append(line)
    alike = bool(commands) and all(command[0] == commands[0][0] for command in commands)
    return (f"{kind} {describe(commands[0][:1])[0]}" if alike else kind), "\n".join(lines)


def _one(_: Sequence[Any], answer: Any) -> tuple[int, int]:
    return (0, 1) if answer is None else (1, 0)


def _filled(_: Sequence[Any], answer: Any) -> tuple[int, int]:
    return (1, 0) if answer else (0, 1)


def _each(_: Sequence[Any], answers: Any) -> tuple[int, int]:
    hits = sum(answer is not None for answer in answers)
    return hits, len(answers) - hits


def _counted(command: Sequence[Any], answer: Any) -> tuple[int, int]:
    return int(answer), len(command) - 1 - int(answer)


_READINGS: Final[dict[Any, Callable[[Sequence[Any], Any], tuple[int, int]]]] = {
    **dict.fromkeys(("GET", "GETEX", "GETDEL", "HGET"), _one),
    **dict.fromkeys(("MGET", "HMGET"), _each),
    **dict.fromkeys(("HGETALL", "HEXISTS"), _filled),
    "EXISTS": _counted,
}


def found(exchanged: Iterable[tuple[Sequence[Any], Any]]) -> tuple[int, int]:
    """Return how many keys (or fields) were read that were there, and how many that were not.

    Args:
        exchanged: commands and their answers; an exception is the answer to one that failed inside of a pipeline.

    """
    hits = misses = 0
    for command, answer in exchanged:
        reading = _READINGS.get(command[0])
        if reading is not None and not isinstance(answer, Exception):
            there, missing = reading(command, answer)
            hits, misses = hits + there, misses + missing
    return hits, misses
