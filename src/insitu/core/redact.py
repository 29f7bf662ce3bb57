"""Secrets and personal data out of every signal, by one rule set.

By key: a key is cut into words (`x-api-key`, `apiKey`, `db_password`) and the words decide, so that `author`,
`tokenizer` and
`gen_ai.usage.input_tokens` stay. By value: shapes that secrets have wherever they stand (tokens of known issuers,
JWT, private keys,
passwords in URLs, `password=...`, card numbers).

Everything that is kept or exported passes here, so the common case is two set look-ups an attribute: keys and short
texts
that were found clean are remembered. A fresh text meets tests at C speed first, and the patterns only where those
find a reason.
Each pattern is linear: it has a literal or a bounded start, and consumes what it has begun.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final
from urllib.parse import unquote_plus

REPLACEMENT: Final = "[redacted]"
TEXT_LIMIT: Final = 12_288  # characters of a text that are looked at; what is behind them is cut, not passed on unseen
CUT: Final = "…"
DEPTH_LIMIT: Final = 16
ITEM_LIMIT: Final = 10_000  # values looked at in one nested value; the rest is replaced

_CLEAN, _SECRET, _ALLOWED = 0, 1, 2

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W\d_]+|\d+")

# A secret's noun anywhere in the key, unless the last word says that it is something about the secret.
_NOUNS: Final = frozenset(
    "password passwords passwd passphrase passcode pwd pword passwort kennwort senha secret secrets token "
    "authorization credential credentials "
    "creds csrf xsrf ssn cvv cvc iban jwt apikey apikeys privatekey accesskey secretkey cookie cookies "
    "authtoken otp totp sessid phpsessid "
    "jsessionid sessionid cardnumber creditcard".split()
)
# Written together with what they belong to: `PGPASSWORD`, `clientsecret`, `accesstoken`.
_ENDINGS: Final = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "sessionid",
    "sessid",
)
_ALONE: Final = frozenset({("pin",), ("auth",), ("sid",), ("sig",), ("signature",), ("pan",), ("sessionkey",)})
_PAIRS: Final = frozenset(
    tuple(pair.split())
    for pair in (
        "api key,api keys,private key,private keys,secret key,access key,access keys,encryption key,signing key,"
        "ssh key,account key,master key,shared key,"
        "auth key,session key,subscription key,service key,license key,deploy key,webhook key,host key,security code,"
        "session id,connect sid,card number,card no,card num,cc number,credit card,debit card,social security,"
        "account number,passport number,"
        "pin code,card pin,user pin,security pin,amz signature,goog signature,auth code,auth data,basic auth,"
        "x auth,proxy auth,http auth,"
        "access tokens,refresh tokens,auth tokens,api tokens,id tokens,session tokens,bearer tokens,pass phrase,"
        "pass word,connection string"
    ).split(",")
)
_ABOUT: Final = frozenset(
    "count counts length len size type types total limit limits usage used uses expires expiry expired "
    "expiration at age ttl "
    "name names status valid validity required requires enabled disabled present policy banner consent notice "
    "domain path version "
    "id ids endpoint url uri index position rate budget price cost strength field column label hint min max "
    "per second minute "
    "bucket rotation rotated created updated changed reset resets attempts errors failures method scheme "
    "algorithm alg provider santa "
    "jar settings preferences manager service vocabulary vocab details refresh table format".split()
)
_ASKS: Final = frozenset(
    "is has have needs requires num number max min total n no missing invalid forgot show hide".split()
)
_KEPT_KEYS: Final = frozenset(
    {"session.id", "session.previous_id"}
)  # OpenTelemetry's names for a visit, not for what opens one

_STEMS: Final = (
    "pass pwd secret token key auth cred cookie csrf xsrf ssn cvv cvc iban jwt otp sess sid sig card pin "
    "kennwort senha pan security account string".split()
)
_STEM: Final = re.compile("|".join(_STEMS))

# One byte per character: W in words, = for what separates a key from its value, blank for the rest.
_SHAPE: Final = bytes(
    87 if bytes([byte]).isalnum() or byte in b"_-" else 61 if byte in b"=:'\"%" else 32 for byte in range(256)
)
_DIGITS: Final = bytes(48 if byte in b"0123456789" else 32 for byte in range(256))
_SEPARATOR: Final = 61  # as a number: `bytes in bytes` costs ten times as much
_LONG_WORD: Final = b"W" * 16
_MANY_DIGITS: Final = b"0" * 13

_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----(?s:.*?)"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----|\Z)"
)
_USER_INFO: Final = re.compile(r"""://(?:[^\s/?#"'<>]+@|[^\s/?#@:"'<>]{0,128}:(?!\d{1,5}[/?#])[^\s"'<>@]{1,256}@)""")
_SCHEME: Final = re.compile(r"\b(bearer|basic)(\s{1,4}|%20|\+)([A-Za-z0-9._~+/%-]{4,}+=*+)", re.IGNORECASE)
_TOKEN: Final = re.compile(
    r"eyJ[\w-]{14,}(?:\.[\w-]*)*"
    r"|A(?:KIA|SIA|BIA|CCA|ROA|IDA)[A-Z0-9]{16}"
    r"|AIza[\w-]{30,}|ya29\.[\w-]{16,}|GOCSPX-[\w-]{16,}"
    r"|gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|gl[a-z]{2,5}-[\w-]{16,}|glsa_\w{16,}"
    r"|xox[a-z]-[\w-]{11,}|xapp-[\w-]{11,}|hooks\.slack\.com/(?:services|workflows)/[\w/-]+"
    r"|[spr]k_(?:live|test)_[A-Za-z0-9]{8,}|whsec_[\w/+=-]{10,}"
    r"|s(?<![A-Za-z0-9]s)k-[\w-]{16,}"
    r"|npm_[A-Za-z0-9]{16,}|pypi-[\w-]{16,}|SG\.[\w-]{16,}(?:\.[\w-]*)*|S(?<![A-Za-z0-9]S)K[0-9a-f]{32}|A(?<![A-Za-z0-9]A)C[0-9a-f]{32}"
    r"|hf_[A-Za-z0-9]{16,}|do[a-z]_v1_[0-9a-f]{16,}|shp[a-z]{2}_[0-9a-fA-F]{16,}|dapi[0-9a-f]{32}|hv[sb]\.[\w-]{16,}|gsk_[A-Za-z0-9]{16,}|xai-[\w-]{16,}"
    r"|AGE-SECRET-KEY-1[A-Z0-9]{16,}|k(?<![A-Za-z0-9]k)ey-[0-9a-f]{32}|sntry[su]_[\w+/=-]{16,}|lin_api_\w{16,}|sq0[a-z]{3}-[\w-]{16,}"
)
_CARD: Final = re.compile(
    r"(?<!\w)(?<!\d[.-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?!\w)(?!\.\d)",
    re.ASCII,
)
_EMAIL: Final = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}+(?:@|(?<=%40))[A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+){1,8}"
)
_ISSUERS: Final = re.compile(  # by which digits which card begins, and how long it is
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}(?:\d{3})?|35(?:2[89]|[3-8]\d)\d{12}(?:\d{3})?|62\d{14,17}|(?:5[0678]|6[37])\d{11,17}"
)

# A key and what stands between it and its value: `a=`, `"a": `, `\"a\":\"`, `('a', `, `a => `, `a%3D`, `--a `, `a '`.
_PAIR: Final = re.compile(
    r"""--(?P<flag>[A-Za-z][\w-]{1,40}+)[ ](?=[^\s-])
      |(?:%[0-9a-f]{2})?(?P<key>
         (?:\b(?:api|access|private|secret|signing|session|card|credit|security)[ ])?[\w.-]{1,64}+)
       (?P<close>\\{0,7}["'\]]{0,2})
       (?:[ \t]{0,8}+(?:=>|!?={1,3}|:=|:(?!:|//)|%3[ad])[ \t]{0,8}+
         |(?<=["'])[ ]?,[ ]{0,2}(?=b?["'])|[ ]{1,4}(?=["']))""",
    re.VERBOSE | re.IGNORECASE,
)
_QUOTED: Final = re.compile(
    r"""b?(?:(?P<escaped>\\{1,7}["'])(?s:.*?)(?:(?<!\\)(?P=escaped)|\Z)|"[^"\\]*+(?:\\(?s:.)[^"\\]*+)*+(?:"|\\?\Z)|'[^'\\]*+(?:\\(?s:.)[^'\\]*+)*+(?:'|\\?\Z))"""
)
_BRACKETED: Final = re.compile(r"(?:\[(?!redacted\])[^\[\]{}]*\]|\{[^\[\]{}]*\}|(?:\[(?!redacted\])|\{)(?s:.*))")
_BARE: Final = re.compile(r"""(?:[^\s&;,"'<>\\]|\\(?!["'])|,(?![\s"'\[{(]|[\w.-]{1,40}["']?\s?[=:]|$))++""")
_LINE: Final = re.compile(r"[^\r\n]+")
_PLACEHOLDER: Final = re.compile(
    r"(?:\?|%s|\$\d{1,3}|null|none|nil|true|false|undefined|\*+|[:@](?P<name>\w+)|%\((?P<python>\w+)\)s)[)\]}]*\Z",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(r"authorization|cookie", re.IGNORECASE)  # their values go on to the end of the line


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
        self._denied = frozenset(filter(None, map(_words, keys)))
        self._allowed = frozenset(filter(None, map(_words, allow)))
        self._patterns = [_compiled(pattern) for pattern in patterns]
        own = [re.escape(words[0]) for words in self._denied | self._allowed]
        self._stem = re.compile("|".join([*_STEMS, *own])) if own else _STEM
        self._verdicts: dict[str, int] = {}
        self._clean_keys: set[str] = set()
        self._clean_values: set[object] = set()

    def attributes(self, attributes: Mapping[str, object]) -> Mapping[str, object]:
        """Return `attributes` itself when clean, else a new dict without the secrets."""
        if not self._enabled:
            return attributes
        if self._clean_keys.issuperset(attributes):
            try:
                if self._clean_values.issuperset(attributes.values()) or self._are_clean(
                    set(attributes.values()) - self._clean_values
                ):
                    return attributes
            except TypeError:  # a list or a mapping among the values
                pass
        changed: dict[str, object] | None = None
        for key, value in attributes.items():
            cleaned = self.value(key, value)
            if cleaned is not value:
                changed = changed or {}
                changed[key] = cleaned
            elif len(key) <= _REMEMBERED_LENGTH and self._verdict(key) == _CLEAN:
                _remember(self._clean_keys, key)
        return attributes if changed is None else {**attributes, **changed}

    def _are_clean(self, values: set[object]) -> bool:
        for value in values:
            kind = type(value)
            if kind is str:
                if self.text(value) is not value:  # type: ignore[arg-type]
                    return False
            elif kind is int and 0 <= value < _SMALL:  # type: ignore[operator]
                _remember(self._clean_values, value)
            elif kind is not float and self.value("", value) is not value:
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
                and self._verdict(unquote_plus(name[-_KEY_LENGTH:])) == _SECRET
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
        words = _words(key)
        if words in self._allowed:
            return _ALLOWED
        if any(_holds(words, denied) for denied in self._denied):
            return _SECRET
        return _SECRET if key not in _KEPT_KEYS and _is_secret(words) else _CLEAN

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
            return REPLACEMENT if value >= _CARDS and value < 10**19 and _is_card(str(int(value))) else value
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
        shape = encoded.translate(_SHAPE)
        separates = _SEPARATOR in shape or "--" in text
        if separates and (("://" in text and "@" in text) or self._stem.search(text.lower())):
            return False
        if (separates or " " in text or "+" in text) and _names_a_scheme(text) and _SCHEME.search(text):
            return False
        if length < _SHORTEST_CARD:
            return True
        return shape.find(_LONG_WORD) < 0 and encoded.translate(_DIGITS, b" -").find(_MANY_DIGITS) < 0

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
            text = _PRIVATE_KEY.sub(REPLACEMENT, text)
        if "://" in text and "@" in text:
            text = _USER_INFO.sub(f"://{REPLACEMENT}@", text)
        if self._stem.search(text.lower()):
            text = self._without_pairs(text)
        text = _TOKEN.sub(REPLACEMENT, _SCHEME.sub(_scheme, text))
        if text.encode("utf-8", "surrogatepass").translate(_DIGITS, b" -").find(_MANY_DIGITS) >= 0:
            text = _without_cards(text)
        if self._emails:
            text = _EMAIL.sub(REPLACEMENT, text)
        for pattern in self._patterns:
            text = REPLACEMENT.join(pattern.sub(_whole, part) for part in text.split(REPLACEMENT))
        return text

    def _without_pairs(self, text: str) -> str:
        parts: list[str] = []
        kept = position = 0
        while match := _PAIR.search(text, position):
            position = match.end()
            key = match["key"] or match["flag"]
            if self._verdict(key) != _SECRET:
                continue
            start, end = _secret_at(text, match, key)
            if start < end:
                parts += text[kept:start], REPLACEMENT
                kept = end
            position = max(position, end)
        return "".join([*parts, text[kept:]]) if parts else text


_NAME: Final = re.compile(r"[\w.\-]{1,128}")
_PAIRED: Final = 2
_SHORTEST_BEARER: Final = 6  # with a digit in it
_SURELY_A_BEARER: Final = 20
_CARDS: Final = 10**12  # a card number is at least this
_SMALL: Final = 65_536  # status codes and ports, worth remembering
_REMEMBERED: Final = 4096
_REMEMBERED_LENGTH: Final = 128
_LONGEST_SECRET: Final = 2048
_PASSES: Final = 5
_REPEATED_LENGTH: Final = 4096  # longer texts are passed once
_KEY_LENGTH: Final = 256
_SHORTEST: Final = 5  # pwd=x
_SHORTEST_CARD: Final = 13
_CLOSERS: Final = ")]}?#"
_TELLS_NOTHING: Final = (REPLACEMENT, "", b"")


def _remember(known: set[Any], value: object) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known.add(value)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"redact: pattern {pattern!r} is not a regular expression: {error}") from error
    if compiled.match(""):
        raise ValueError(f"redact: pattern {pattern!r} matches the empty text")
    return compiled


def _words(key: str) -> tuple[str, ...]:
    if len(key) > _KEY_LENGTH:
        key = f"{key[: _KEY_LENGTH // 2]} {key[-_KEY_LENGTH // 2 :]}"
    return tuple(_WORD.findall(_WORD_START.sub(" ", key).lower()))


def _holds(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1))


def _is_secret(words: tuple[str, ...]) -> bool:
    letters = tuple(word for word in words if not word.isdigit())
    if not letters:
        return False
    about = letters[-1] in _ABOUT or letters[0] in _ASKS
    if any(pair in _PAIRS for pair in pairwise(letters)):
        return not about or letters[-2:] in _PAIRS
    if letters in _ALONE or (letters[-1] == "auth" and not about):
        return True
    return not about and any(word in _NOUNS or word.endswith(_ENDINGS) for word in letters)


def _name(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    return key[:_KEY_LENGTH].decode("latin-1") if type(key) is bytes else ""


def _same(one: object, other: object) -> bool:
    return one is other


def _whole(match: re.Match[str]) -> str:
    return REPLACEMENT if match[0] else ""


def _names_a_scheme(text: str) -> bool:
    return "asic" in text or "earer" in text or "ASIC" in text or "EARER" in text


def _scheme(match: re.Match[str]) -> str:
    """Leave prose: `basic authentication` is not the Base64 of user:password, and a bearer's token is no word."""
    scheme, gap, token = match.groups()
    if scheme.lower() == "basic":
        try:
            secret = b":" in base64.b64decode(unquote_plus(token) if "%" in token else token, validate=True)
        except (binascii.Error, ValueError):
            secret = False
    else:
        secret = len(token) >= _SURELY_A_BEARER or (len(token) >= _SHORTEST_BEARER and not token.rstrip(".").isalpha())
    return f"{scheme}{gap}{REPLACEMENT}" if secret else match[0]


def _without_cards(text: str) -> str:
    parts: list[str] = []
    kept = position = 0
    while match := _CARD.search(text, position):
        position = match.start() + 1
        if _is_card(match[0].replace(" ", "").replace("-", "")):
            parts += text[kept : match.start()], REPLACEMENT
            kept = position = match.end()
    return "".join([*parts, text[kept:]])


def _is_card(digits: str) -> bool:
    """The check of ISO/IEC 7812-1 (Luhn), for numbers that some issuer gives out."""
    if not digits.isascii() or not _ISSUERS.fullmatch(digits):
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _secret_at(text: str, pair: re.Match[str], key: str) -> tuple[int, int]:
    """Return where the value behind `pair` begins and ends, without its quotes; empty where it tells nothing."""
    start = pair.end()
    if quoted := _QUOTED.match(text, start):
        return _inside(quoted)
    opened = text[pair.start() - 1 : pair.start()]
    if not pair["flag"] and _HEADER.search(key):
        if opened in {'"', "'"} and not pair["close"]:
            end = text.find(opened, start)
            end = len(text) if end < 0 else end
        else:
            line = _LINE.match(text, start)
            end = line.end() if line else start
        return (start, start) if text[start:end].rstrip(" )]},;") in {"", REPLACEMENT} else (start, end)
    if bracketed := _BRACKETED.match(text, start):
        return start, _end_of_word(text, bracketed.end())
    if text.startswith(REPLACEMENT, start):
        end = _end_of_word(text, start + len(REPLACEMENT))
        return (start, end) if end > start + len(REPLACEMENT) else (start, start)
    bare = _BARE.match(text, start)
    if not bare or _is_placeholder(bare[0], key):
        return start, start
    return start, start + len(bare[0].rstrip(_CLOSERS))


def _end_of_word(text: str, start: int) -> int:
    """Return where the word ends that goes on at `start`; brackets that close there belong to what is around it."""
    word = _BARE.match(text, start)
    return start + len(word[0].rstrip(_CLOSERS)) if word and word[0][0] not in _CLOSERS else start


def _inside(quoted: re.Match[str]) -> tuple[int, int]:
    text = quoted[0]
    opening = len(text) - len(text.lstrip("b")) + len(quoted["escaped"] or '"')
    mark = text[:opening].lstrip("b")
    closing = len(mark) if len(text) >= opening + len(mark) and text.endswith(mark) else 0
    inside = text[opening : len(text) - closing]
    start = quoted.start() + opening
    return (start, start) if inside in {"", REPLACEMENT} else (start, start + len(inside))


def _is_placeholder(text: str, key: str) -> bool:
    """`password = :password_1` is what a database driver is given, `password=:hunter2` is not."""
    found = _PLACEHOLDER.match(text)
    name = found and (found["name"] or found["python"])
    return bool(found) and (not name or key.rpartition(".")[2].lower() in name.lower())
