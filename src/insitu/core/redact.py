"""Secrets and personal data out of every signal, by one rule set: `core.secrets` says what is looked for.

Everything that is kept or exported passes here, so the common case is two set look-ups an attribute: keys and short
texts that were found clean are remembered. A fresh text meets tests at C speed first, and the patterns only where
those find a reason.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from insitu.core.secrets import (
    CARDS,
    DIGITS,
    EMAIL,
    KEPT_KEYS,
    KEY_LENGTH,
    LONG_WORD,
    MANY_DIGITS,
    PAIR,
    PRIVATE_KEY,
    REPLACEMENT,
    SCHEME,
    SEPARATOR,
    SHAPE,
    STEM,
    STEMS,
    TOKEN,
    USER_INFO,
    holds,
    is_card,
    is_secret,
    names_a_scheme,
    secret_at,
    without_cards,
    without_token,
    words_of,
)

TEXT_LIMIT: Final = 12_288  # characters of a text that are looked at; what is behind them is cut, not passed on unseen
CUT: Final = "…"
DEPTH_LIMIT: Final = 16
ITEM_LIMIT: Final = 10_000  # values looked at in one nested value; the rest is replaced

_CLEAN, _SECRET, _ALLOWED = 0, 1, 2


class Redactor:
    """The rule set. Safe to share between threads; never raises for texts, numbers, bytes and containers of them.

    `keys` are more names whose values are secret; `allow` names keys that are never touched, by key or by value;
    `patterns` are more
    regular expressions of secret values (keep them linear: they run on every fresh text); `emails` takes e-mail
    addresses out.
    Names match in every spelling: `employeeNumber`, `employee-number`. Raises ValueError for a pattern that does
    not compile or that
    matches the empty text.
    """

    def __init__(
        self,
        *,
        keys: Iterable[str] = (),
        allow: Iterable[str] = (),
        patterns: Iterable[str] = (),
        emails: bool = False,
        enabled: bool = True,
    ) -> None:
        self._enabled = enabled
        self._emails = emails
        self._denied = frozenset(filter(None, map(words_of, keys)))
        self._allowed = frozenset(filter(None, map(words_of, allow)))
        self._patterns = [compiled(pattern) for pattern in patterns]
        own = [re.escape(words[0]) for words in self._denied | self._allowed]
        self._stem = re.compile("|".join([*STEMS, *own])) if own else STEM
        self._verdicts: dict[str, int] = {}
        self._clean_keys: set[str] = set()
        self._clean_values: set[str] = set()

    def attributes(self, attributes: Mapping[str, object]) -> Mapping[str, object]:
        """Return `attributes` itself when clean, else a new dict without the secrets."""
        if not self._enabled:
            return attributes
        if self._clean_keys.issuperset(attributes) and self._are_clean(attributes.values()):
            return attributes
        changed: dict[str, object] | None = None
        for key, value in attributes.items():
            cleaned = self.value(key, value)
            if cleaned is not value:
                changed = changed or {}
                changed[key] = cleaned
            elif len(key) <= _REMEMBERED_LENGTH and self._verdict(key) == _CLEAN:
                _remember(self._clean_keys, key)
        return attributes if changed is None else {**attributes, **changed}

    def _are_clean(self, values: Iterable[object]) -> bool:
        """Whether no value under a key that is no secret's holds a secret of its own."""
        known = self._clean_values
        for value in values:
            kind = type(value)
            if kind is str:
                if value not in known and self.text(value) is not value:  # type: ignore[arg-type]
                    return False
            elif kind is float or kind is bool or (kind is int and 0 <= value < CARDS):  # type: ignore[operator]
                continue
            elif self.value("", value) is not value:
                return False
        return True

    def value(self, key: str, value: object) -> object:
        """Return `value` itself when clean.

        A secret key's value is replaced, but None, booleans and empty texts tell nothing and stay.
        """
        return self._value(key, value, [ITEM_LIMIT], 0) if self._enabled else value

    def text(self, value: str) -> str:
        """Return `value` itself when nothing was found, else the text with each secret as `REPLACEMENT`.

        A text longer than `TEXT_LIMIT` is cut there.
        """
        if not self._enabled or (len(value) <= _REMEMBERED_LENGTH and value in self._clean_values):
            return value
        plain = value if type(value) is str else str.__str__(value)
        if not self._innocent(plain):
            found = self._scrubbed(plain)
            if found != plain:
                return found
        if len(plain) <= _REMEMBERED_LENGTH:
            _remember(self._clean_values, plain)
        return value

    def url(self, value: str) -> str:
        """Return the URL (or its query alone) without user information and without the values of secret parameters."""
        if not self._enabled:
            return value
        value = self.text(value)
        if "=" not in value:
            return value
        parts = re.split(r"([?&;#])", value)  # an encoded name (`%74oken`) is what the patterns for texts cannot see
        for at in range(0, len(parts), 2):
            name, separator, secret = parts[at].partition("=")
            if (
                separator
                and secret
                and secret != REPLACEMENT
                and self._verdict(unquote_plus(name[-KEY_LENGTH:])) == _SECRET
            ):
                parts[at] = f"{name}={REPLACEMENT}"
        joined = "".join(parts)
        return value if joined == value else self.text(joined)

    def _verdict(self, key: str) -> int:
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._judged(key)
            if len(key) <= _REMEMBERED_LENGTH:
                if len(self._verdicts) >= _REMEMBERED:
                    self._verdicts.clear()
                self._verdicts[key] = verdict
        return verdict

    def _judged(self, key: str) -> int:
        if not self._stem.search(key.lower()):
            return _CLEAN
        words = words_of(key)
        if words in self._allowed:
            return _ALLOWED
        if any(holds(words, denied) for denied in self._denied):
            return _SECRET
        return _SECRET if key not in KEPT_KEYS and is_secret(words) else _CLEAN

    def _value(  # noqa: PLR0911 - one line for each type
        self, key: str, value: object, left: list[int], depth: int
    ) -> object:
        verdict = self._verdict(key) if key else _CLEAN
        if verdict == _ALLOWED or value is None or value is True or value is False:
            return value
        left[0] -= 1
        if verdict == _SECRET:
            return value if value in _TELLS_NOTHING else REPLACEMENT
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return REPLACEMENT if value >= CARDS and value < 10**19 and is_card(str(int(value))) else value
        if isinstance(value, bytes | bytearray):
            return self._bytes(value)
        if not isinstance(value, list | tuple | set | frozenset | Mapping):
            return value
        if depth >= DEPTH_LIMIT or left[0] <= 0:
            return REPLACEMENT
        return self._mapping(value, left, depth) if isinstance(value, Mapping) else self._items(value, left, depth)

    def _bytes(self, value: bytes | bytearray) -> object:
        text = bytes(value).decode("utf-8", "surrogateescape")
        found = self.text(text)
        return value if found is text else found.encode("utf-8", "surrogateescape")

    def _mapping(self, value: Mapping[Any, object], left: list[int], depth: int) -> object:
        changed = {}
        for key, item in list(value.items()):
            cleaned = self._value(_name(key), item, left, depth + 1)
            if cleaned is not item:
                changed[key] = cleaned
        return {**value, **changed} if changed else value

    def _items(self, value: Any, left: list[int], depth: int) -> object:
        items = list(value)
        if (
            len(items) == _PAIRED and isinstance(value, list | tuple) and _NAME.fullmatch(key := _name(items[0]))
        ):  # a header, as ASGI has them
            cleaned = [self._value("", items[0], left, depth + 1), self._value(key, items[1], left, depth + 1)]
        else:
            cleaned = [self._value("", item, left, depth + 1) for item in items]
        if all(map(_same, cleaned, items)):
            return value
        kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
        return kind(cleaned)

    def _innocent(self, text: str) -> bool:  # noqa: PLR0911 - the cheapest test that can tell ends it
        """Whether no pattern can match, told by tests that run at C speed."""
        length = len(text)
        if self._patterns or (self._emails and ("@" in text or "%40" in text)):
            return False
        if length < _SHORTEST:
            return True
        if length > TEXT_LIMIT:
            return False
        encoded = text.encode("utf-8", "surrogatepass")
        shape = encoded.translate(SHAPE)
        separates = SEPARATOR in shape or "--" in text
        if separates and (("://" in text and "@" in text) or self._stem.search(text.lower())):
            return False
        if (separates or " " in text or "+" in text) and names_a_scheme(text) and SCHEME.search(text):
            return False
        if length < _SHORTEST_CARD:
            return True
        return shape.find(LONG_WORD) < 0 and encoded.translate(DIGITS, b" -").find(MANY_DIGITS) < 0

    def _scrubbed(self, text: str) -> str:
        if len(text) > TEXT_LIMIT:  # a secret that begins before the limit is seen whole
            return self._passed(text[: TEXT_LIMIT + _LONGEST_SECRET])[: TEXT_LIMIT - len(CUT)] + CUT
        for _ in range(_PASSES):  # what one rule leaves may be what another one looks for
            found = self._passed(text)
            if found == text or len(found) > _REPEATED_LENGTH:
                return found
            text = found
        return text

    def _passed(self, text: str) -> str:
        if "-----BEGIN " in text:
            text = PRIVATE_KEY.sub(REPLACEMENT, text)
        if "://" in text and "@" in text:
            text = USER_INFO.sub(f"://{REPLACEMENT}@", text)
        text = TOKEN.sub(REPLACEMENT, SCHEME.sub(without_token, text))
        if self._stem.search(text.lower()):  # after the tokens, whose first word alone would be taken for the value
            text = self._without_pairs(text)
        if text.encode("utf-8", "surrogatepass").translate(DIGITS, b" -").find(MANY_DIGITS) >= 0:
            text = without_cards(text)
        if self._emails:
            text = EMAIL.sub(REPLACEMENT, text)
        for pattern in self._patterns:
            text = REPLACEMENT.join(pattern.sub(_whole, part) for part in text.split(REPLACEMENT))
        return text

    def _without_pairs(self, text: str) -> str:
        parts: list[str] = []
        kept = position = 0
        while match := PAIR.search(text, position):
            position = match.end()
            key = match["key"] or match["flag"]
            if self._verdict(key) != _SECRET:
                continue
            start, end = secret_at(text, match, key)
            inner = PAIR.match(text, start)
            for _ in range(_NESTED):  # `app.secrets.Refused: Authorization: Digest ...`: the value holds a key itself
                if inner is None:
                    break
                if self._verdict(name := inner["key"] or inner["flag"]) == _SECRET:
                    end = max(end, secret_at(text, inner, name)[1])
                inner = PAIR.match(text, inner.end())
            if start < end:
                parts += text[kept:start], REPLACEMENT
                kept = end
            position = max(position, end)
        return "".join([*parts, text[kept:]]) if parts else text


_NAME: Final = re.compile(r"[\w.\-]{1,128}")
_PAIRED: Final = 2
_REMEMBERED: Final = 4096
_REMEMBERED_LENGTH: Final = 128
_LONGEST_SECRET: Final = 2048
_PASSES: Final = 5
_NESTED: Final = 4
_REPEATED_LENGTH: Final = 4096  # longer texts are passed once
_SHORTEST: Final = 5  # pwd=x
_SHORTEST_CARD: Final = 13
_TELLS_NOTHING: Final = (REPLACEMENT, "", b"")


def _remember(known: set[str], value: str) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known.add(value)


def compiled(pattern: str) -> re.Pattern[str]:
    """Return an own pattern; ValueError when it does not compile, or matches the empty text."""
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"redact: pattern {pattern!r} is not a regular expression: {error}") from error
    if compiled.match(""):
        raise ValueError(f"redact: pattern {pattern!r} matches the empty text")
    return compiled


def _name(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    return key[:KEY_LENGTH].decode("latin-1") if type(key) is bytes else ""


def _same(one: object, other: object) -> bool:
    return one is other


def _whole(match: re.Match[str]) -> str:
    return REPLACEMENT if match[0] else ""
