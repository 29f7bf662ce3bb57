"""SQL text without its values, and the low-cardinality names made of it.

The text is cut into tokens once, in linear time, by rules on which the dialects agree. Where they do not agree
about where
a literal ends (a backslash before a quote, nested comments, a comment that only MySQL knows), nothing after that
point can
be trusted, so the whole text becomes `?`. What a name is and what a value (MySQL writes strings in double quotes,
too) is
decided by where the token stands.

Names follow OpenTelemetry's semantic conventions for database spans (`db.query.text`, `db.operation.name`,
`db.query.summary`).
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

UNKNOWN: Final = "?"
INPUT_LIMIT: Final = 8_192  # characters that are looked at
TOKEN_LIMIT: Final = 4_096  # tokens that are looked at: a statement of single characters costs most
OUTPUT_LIMIT: Final = 8_192  # characters that are returned
SUMMARY_LIMIT: Final = 255  # of the semantic conventions
CACHED_LENGTH: Final = 4_096  # longer statements are rarely repeated, and not held

_TOKEN: Final = re.compile(
    r"""
  (?P<space>\s++)
| (?P<comment>/\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/)
| (?P<line>--[^\n]*+|\#(?![\w#>-])[^\n]*+)
| (?P<value>
      e'(?:[^'\\]++|\\.|'')*+'
    | n?q'(?:\[.*?\]'|\{.*?\}'|\(.*?\)'|<.*?>'|(?P<mark>[^\s\w'"]).*?(?P=mark)')
    | (?:n|b|x|r|br|rb|u&|_[a-z0-9]++)?'(?:[^'\\]++|\\[^']|'')*+'
    | \$(?P<tag>(?:[^\W\d]\w*+)?)\$.*?\$(?P=tag)\$
    | \.?\d[\w.]*+(?:(?<=e)[+-]\d++)?
  )
| (?P<double>"(?:[^"\\]++|\\[^"]|"")*+")
| (?P<name>`(?:[^`\\]++|``)*+`|(?<![\w)\]])\[[^\W\d][\w\ $.-]*+\]|\#\#?\w++)
| (?P<doubt>/\*|n?q'|\[\s*+\w[\w\s]*+['"`])
| (?P<place>\?\d*+|\$\d++|:(?![:=])\w++|@{1,2}[\w$.]++|%s(?!\w)|%\(\w++\)s)
| (?P<word>[^\W\d][\w$\#]*+)
| (?P<sign>::|:=|[<>=!~|&^*/%+-]+?(?=--|/\*|-|[^<>=!~|&^*/%+-]|$)|\#>{1,2}|\#-|[.,;()\[\]{}:@])
| (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)

_VERBS: Final = frozenset(
    "SELECT INSERT UPDATE DELETE MERGE REPLACE UPSERT WITH VALUES TABLE CREATE ALTER DROP TRUNCATE RENAME "
    "COMMENT GRANT REVOKE BEGIN "
    "START COMMIT ROLLBACK SAVEPOINT RELEASE END ABORT SET RESET SHOW USE EXPLAIN DESCRIBE DESC ANALYZE "
    "VACUUM OPTIMIZE "
    "PRAGMA ATTACH DETACH REINDEX COPY LOAD CALL EXEC EXECUTE PREPARE DEALLOCATE DECLARE FETCH CLOSE OPEN "
    "LOCK UNLOCK "
    "LISTEN NOTIFY UNLISTEN KILL FLUSH CHECKPOINT REFRESH DO GO IF SYSTEM EXCHANGE UNLOAD EXPORT IMPORT".split()
)
_DATA_VERBS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE"})
_CALLS: Final = frozenset({"EXEC", "EXECUTE", "CALL"})
_OBJECTS: Final = frozenset(
    "TABLE INDEX VIEW SCHEMA DATABASE SEQUENCE FUNCTION PROCEDURE TRIGGER TYPE ROLE USER EXTENSION".split()
)
_NOT_A_VERB_AFTER: Final = frozenset(
    {"FOR", "ON", "KEY", "DO", "NO", "BEFORE", "AFTER", "OR", "INSTEAD", "THEN", "GRANT", ","}
)
_BEFORE_A_TARGET: Final = frozenset("FROM JOIN INTO TABLE USING".split()) | (_OBJECTS - {"USER", "TYPE", "ROLE"})
_BEFORE_A_NAME: Final = frozenset(
    "FROM JOIN INTO UPDATE TABLE INDEX VIEW SCHEMA DATABASE SEQUENCE AS TRUNCATE COLUMN CONSTRAINT".split()
)
_SKIPPED_BEFORE_A_TARGET: Final = frozenset(
    "ONLY LATERAL IF NOT EXISTS IGNORE LOW_PRIORITY DELAYED HIGH_PRIORITY OVERWRITE CONCURRENTLY REPLACE "
    "ABORT FAIL ROLLBACK".split()
)
_LEFT_OF: Final = frozenset("IS IN LIKE ILIKE BETWEEN NOT ASC DESC".split())
_BEFORE_A_CONDITION: Final = frozenset("WHERE AND OR ON WHEN NOT HAVING".split())
_MAY_PRECEDE_A_COLUMN: Final = frozenset("SELECT DISTINCT BY SET RETURNING KEY".split())


class _Token(NamedTuple):
    kind: str  # value, name, place, word, sign
    text: str
    spaced: bool  # stood behind white space or a comment


class _Reading(NamedTuple):
    text: str
    operation: str
    summary: str


def sanitize(statement: str) -> str:
    """Return `statement` with every literal as `?`, without comments, with single spaces, within `OUTPUT_LIMIT`.

    Placeholders stay as they are written, but lists behind IN become `(?)` and only the first row of VALUES is
    left, so that
    one query has one text. A text that cannot be read with certainty is returned as `?`. Never raises.
    """
    return _read(statement).text


def operation(statement: str) -> str:
    """Return the upper-case verb (`SELECT`; behind WITH that of the main query), or an empty text if it is unknown."""
    return _read(statement).operation


def summary(statement: str) -> str:
    """Return operations and their targets in the order of the text, such as `INSERT orders SELECT carts`.

    At most `SUMMARY_LIMIT` characters, cut between words; empty when not even the verb is known.
    """
    return _read(statement).summary


def _read(statement: str) -> _Reading:
    return _cached(statement) if len(statement) <= CACHED_LENGTH else _analyse(statement)


def _analyse(statement: str) -> _Reading:
    tokens = list(islice(_tokens(statement[:INPUT_LIMIT], cut=len(statement) > INPUT_LIMIT), TOKEN_LIMIT))
    cut = len(statement) > INPUT_LIMIT or len(tokens) == TOKEN_LIMIT
    verb = _verb(tokens)
    if _doubtful(tokens, statement):
        return _Reading(UNKNOWN, verb, verb)
    if any(token.kind == "double" for token in tokens):
        tokens = list(_named(tokens))
    if tokens and tokens[0].text.upper() in _CALLS:
        tokens = list(_call(tokens))
    text = _written(list(_merged(tokens)))
    if cut or len(text) > OUTPUT_LIMIT:
        text = text[: OUTPUT_LIMIT - 1] + "…"
    return _Reading(text, verb, _summary(tokens))


_cached: Final = lru_cache(maxsize=512)(_analyse)


def _tokens(text: str, *, cut: bool) -> Iterator[_Token]:
    """Yield the tokens; at a place that dialects read differently a last one of the kind `doubt`.

    In a text that was cut, that place is most likely the literal which the cut opened: it is a value, and the end.
    """
    spaced = False
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind in {"tag", "mark"}:
            kind = "value"
        found = match[0]
        if kind in {"space", "comment"} or (kind == "line" and not _open_to_doubt(found)):
            spaced = True
            continue
        if kind in {"doubt", "other", "line"}:
            yield (
                _Token("value", UNKNOWN, spaced=spaced)
                if cut and kind != "line"
                else _Token("doubt", UNKNOWN, spaced=spaced)
            )
            return
        yield _Token(kind, UNKNOWN if kind == "value" else found, spaced=spaced)
        spaced = False


def _open_to_doubt(comment: str) -> bool:
    """Whether some dialect reads code here: `5--'a` is arithmetic in MySQL, `5 # 'a'` in PostgreSQL."""
    starts_plainly = comment.startswith(("-- ", "--\t", "--\r")) or comment == "--"
    return "\r" in comment.removesuffix("\r") or (not starts_plainly and any(quote in comment for quote in "'\"`$"))


def _verb(tokens: list[_Token]) -> str:
    first = next((token.text.upper() for token in tokens if token.text != "("), "")
    if first == "WITH":
        depth = 0
        for token in tokens:
            depth += (token.text == "(") - (token.text == ")")
            if depth == 0 and token.kind == "word" and token.text.upper() in _DATA_VERBS:
                return token.text.upper()
    return first if first in _VERBS else ""


def _doubtful(tokens: list[_Token], statement: str) -> bool:
    if not tokens:
        return bool(statement.strip()) and not statement.lstrip().startswith(("--", "/*", "#"))
    words = {token.text.upper() for token in tokens if token.kind == "word"}
    # Oracle's passwords need no quotes, and the data of COPY follow the statement as they are.
    return (
        tokens[-1].kind == "doubt"
        or "IDENTIFIED" in words
        or ({"COPY", "STDIN"} <= words and statement.rstrip(" ;\n").count(";") > 0)
    )


def _named(tokens: list[_Token]) -> Iterator[_Token]:
    """Yield the tokens with each text in double quotes told to be a name or a value."""
    standard = any(_surely_a_name(tokens, at) for at, token in enumerate(tokens) if token.kind == "double")
    lists_names = values_seen = False
    depth = 0
    for at, token in enumerate(tokens):
        before = tokens[at - 1].text.upper() if at else ""
        if token.text == "(":
            depth += 1
            lists_names = depth == 1 and not values_seen and _follows_target(tokens, at)
        elif token.text == ")":
            depth -= 1
        elif token.text.upper() == "VALUES":
            values_seen = True
        if token.kind != "double":
            yield token
            continue
        listed = before in {"(", ","} and not values_seen and (lists_names if depth else True)
        is_column = (
            listed or before in _MAY_PRECEDE_A_COLUMN or (before in _BEFORE_A_CONDITION and _is_left(tokens, at))
        )
        keeps = _surely_a_name(tokens, at) or (standard and is_column)
        yield (
            token._replace(kind="name")
            if keeps and len(token.text) <= _NAME_LENGTH
            else token._replace(kind="value", text=UNKNOWN)
        )


_NAME_LENGTH: Final = 130  # 128 characters is the longest name of the common databases


def _surely_a_name(tokens: list[_Token], at: int) -> bool:
    """A string never touches a dot, nor stands where only a table can."""
    before = tokens[at - 1].text.upper() if at else ""
    after = tokens[at + 1].text if at + 1 < len(tokens) else ""
    return (
        before == "."
        or after == "."
        or (before in _BEFORE_A_NAME and not (before == "UPDATE" and at > 1 and tokens[at - 2].text.upper() == "KEY"))
    )


def _is_left(tokens: list[_Token], at: int) -> bool:
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    return after is not None and (after.text.upper() in _LEFT_OF or after.text[0] in "=<>!")


def _follows_target(tokens: list[_Token], at: int) -> bool:
    """Whether the parenthesis opens the columns of `INSERT INTO name (` or `CREATE TABLE name (`."""
    at -= 1
    while at > 1 and tokens[at - 1].text == ".":
        at -= 2
    return (
        at > 0
        and tokens[at].kind in {"word", "name", "double"}
        and tokens[at - 1].text.upper() in {"INTO", "TABLE", "EXISTS"}
    )


def _call(tokens: list[_Token]) -> Iterator[_Token]:
    """Yield a call without what it hands over: T-SQL takes bare words as strings."""
    yield tokens[0]
    for at, token in enumerate(tokens[1:], 1):
        if token.kind not in {"word", "name"} and token.text != ".":
            break
        if at > 1 and token.text != "." and tokens[at - 1].text != ".":
            break
        yield token
    else:
        return
    yield _Token("value", UNKNOWN, spaced=True)


def _written(tokens: list[_Token]) -> str:
    return "".join(" " + token.text if token.spaced else token.text for token in _folded(tokens)).strip()


def _merged(tokens: list[_Token]) -> Iterator[_Token]:
    """Yield the tokens with neighbouring values as one (`'a' 'b'`) and without the sign of a number."""
    before: _Token | None = None
    signed = False
    for at, token in enumerate(tokens):
        if token.kind == "value" and before is not None and before.kind == "value":
            continue
        is_sign = token.text in {"-", "+"} and at + 1 < len(tokens) and tokens[at + 1].kind == "value"
        if is_sign and before is not None and before.kind == "sign" and before.text not in {")", "]"}:
            signed = token.spaced
            continue
        before = token._replace(spaced=True) if signed else token
        signed = False
        yield before


def _folded(tokens: list[_Token]) -> Iterator[_Token]:
    """Yield the tokens with lists of values as `(?)` behind IN and `[?]`, and with the first row of VALUES only."""
    closes, plain = _groups(tokens)
    at = 0
    while at < len(tokens):
        token = tokens[at]
        before = tokens[at - 1].text.upper() if at else ""
        opens = token.text in {"(", "["} and at in closes
        if opens and at in plain and (before == "IN" or token.text == "["):
            yield token._replace(text="(?)" if token.text == "(" else "[?]")
            at = closes[at] + 1
            continue
        if opens and before == "VALUES":
            yield from tokens[at : closes[at] + 1]
            at = closes[at] + 1
            while at + 1 < len(tokens) and tokens[at].text == "," and tokens[at + 1].text == "(" and at + 1 in closes:
                at = closes[at + 1] + 1
            continue
        yield token
        at += 1


def _groups(tokens: list[_Token]) -> tuple[dict[int, int], set[int]]:
    """Return where each bracket closes, and which of them hold nothing but values, commas and such brackets."""
    closes: dict[int, int] = {}
    plain: set[int] = set()
    names: list[int] = []  # of each open bracket: how many words it holds
    values: list[int] = []
    opened: list[int] = []
    for at, token in enumerate(tokens):
        if token.text in {"(", "["}:
            opened.append(at)
            names.append(0)
            values.append(0)
        elif token.text in {")", "]"} and opened:
            start, held_names, held_values = opened.pop(), names.pop(), values.pop()
            closes[start] = at
            if held_names == 0 and held_values > 0:
                plain.add(start)
            if opened:
                names[-1] += held_names
                values[-1] += held_values
        elif opened:
            names[-1] += token.kind not in {"value", "place"} and token.text != ","
            values[-1] += token.kind in {"value", "place"}
    return closes, plain


def _summary(tokens: list[_Token]) -> str:
    parts: list[str] = []
    length = -1
    for part in _summed_up(tokens):
        length += len(part) + 1
        if length > SUMMARY_LIMIT:
            break
        parts.append(part)
    return " ".join(parts)


def _summed_up(tokens: list[_Token]) -> Iterator[str]:  # noqa: C901 - one reader, a line for each kind of token
    """Yield verbs and the tables they work on.

    FROM counts only where a verb of the same depth waits for it (not in EXTRACT).
    """
    waits = [False]
    wanted = False  # the next name is a target
    before = ""
    for at, token in enumerate(tokens):
        word = token.text.upper()
        if token.text == "(":
            waits.append(False)
            wanted = False
        elif token.text == ")":
            waits = waits[:-1] or [False]
        elif token.text == "," and waits[-1] and before == "TARGET":
            wanted = True
            continue
        elif token.kind == "word" and _is_verb(tokens, at):
            waits[-1] = True
            wanted = word in {"UPDATE", "INSERT", "TRUNCATE"} or word in _CALLS
            if word != "WITH":
                yield word
        elif wanted and word in _OBJECTS | _SKIPPED_BEFORE_A_TARGET | {"INTO", "OR"}:
            pass
        elif token.kind == "word" and waits[-1] and before != "DISTINCT" and word in _BEFORE_A_TARGET:
            wanted = True
            if word in _OBJECTS:
                yield word
        elif wanted and token.kind in {"word", "name"} and word not in _RESERVED:
            yield _target(tokens, at)
            wanted, before = False, "TARGET"
            continue
        elif token.text == "." or (before == "TARGET" and token.kind in {"word", "name"} and word not in _RESERVED):
            continue  # the rest of a dotted name, or an alias
        before = word


_RESERVED: Final = _BEFORE_A_TARGET | frozenset(
    "WHERE SET ON VALUES ORDER GROUP LIMIT HAVING UNION RETURNING WHEN LEFT RIGHT INNER CROSS FULL NATURAL".split()
)


def _is_verb(tokens: list[_Token], at: int) -> bool:
    word = tokens[at].text.upper()
    if at == 0:
        return word in _VERBS
    before = tokens[at - 1].text.upper()
    return (before == ";" and word in _VERBS) or (
        word in _DATA_VERBS and before not in _NOT_A_VERB_AFTER and before != "."
    )


def _target(tokens: list[_Token], at: int) -> str:
    parts = [tokens[at].text]
    while at + 2 < len(tokens) and tokens[at + 1].text == "." and tokens[at + 2].kind in {"word", "name"}:
        at += 2
        parts.append(tokens[at].text)
    return ".".join(part if " " in part else part.strip('"`[]') for part in parts)
