"""What a secret looks like: by the name it goes by, and by its own shape.

Tables and patterns, and the few functions that read them; `core.redact` decides where they are applied.

By name: a key is cut into words (`x-api-key`, `apiKey`, `db_password`) and the words decide, so that `author`,
`tokenizer` and `gen_ai.usage.input_tokens` stay. By shape: tokens of known issuers, JWT, private keys, passwords in
URLs, `password=...`, card numbers. Each pattern is linear: it has a literal or a bounded start, and consumes what it
has begun.
"""

import base64
import binascii
import re
from itertools import pairwise
from typing import Final
from urllib.parse import unquote_plus

REPLACEMENT: Final = "[redacted]"
KEY_LENGTH: Final = 256  # characters of a key that are looked at

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
KEPT_KEYS: Final = frozenset(
    {"session.id", "session.previous_id"}
)  # OpenTelemetry's names for a visit, not for what opens one

STEMS: Final = (
    "pass pwd secret token key auth cred cookie csrf xsrf ssn cvv cvc iban jwt otp sess sid sig card pin "
    "kennwort senha pan security account string".split()
)
STEM: Final = re.compile("|".join(STEMS))

# One byte per character: W in words, = for what separates a key from its value, blank for the rest.
SHAPE: Final = bytes(
    87 if bytes([byte]).isalnum() or byte in b"_-" else 61 if byte in b"=:'\"%" else 32 for byte in range(256)
)
DIGITS: Final = bytes(48 if byte in b"0123456789" else 32 for byte in range(256))
SEPARATOR: Final = 61  # as a number: `bytes in bytes` costs ten times as much
LONG_WORD: Final = b"W" * 16
MANY_DIGITS: Final = b"0" * 13

PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----(?s:.*?)"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----|\Z)"
)
USER_INFO: Final = re.compile(r"""://(?:[^\s/?#"'<>]+@|[^\s/?#@:"'<>]{0,128}:(?!\d{1,5}[/?#])[^\s"'<>@]{1,256}@)""")
SCHEME: Final = re.compile(r"\b(bearer|basic)(\s{1,4}|%20|\+)([A-Za-z0-9._~+/%-]{4,}+=*+)", re.IGNORECASE)
TOKEN: Final = re.compile(
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
EMAIL: Final = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}+(?:@|(?<=%40))[A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+){1,8}"
)
_ISSUERS: Final = re.compile(  # by which digits which card begins, and how long it is
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}(?:\d{3})?|35(?:2[89]|[3-8]\d)\d{12}(?:\d{3})?|62\d{14,17}|(?:5[0678]|6[37])\d{11,17}"
)

# A key and what stands between it and its value: `a=`, `"a": `, `\"a\":\"`, `('a', `, `a => `, `a%3D`, `--a `, `a '`.
PAIR: Final = re.compile(
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
_CREDENTIALS: Final = re.compile(r"(?:bearer|basic|digest|negotiate)[ ]", re.IGNORECASE)  # `token: Bearer ...`
_HEADER: Final = re.compile(r"authorization|cookie", re.IGNORECASE)  # their values go on to the end of the line
_SHORTEST_BEARER: Final = 6  # with a digit in it
_SURELY_A_BEARER: Final = 20
CARDS: Final = 10**12  # a card number is at least this
_CLOSERS: Final = ")]}?#"


def words_of(key: str) -> tuple[str, ...]:
    """Return the words of a key, in lower case: `clientSecret2` is `client secret 2`."""
    if len(key) > KEY_LENGTH:
        key = f"{key[: KEY_LENGTH // 2]} {key[-KEY_LENGTH // 2 :]}"
    return tuple(_WORD.findall(_WORD_START.sub(" ", key).lower()))


def holds(words: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether `wanted` stands in `words`, in one piece."""
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1))


def is_secret(words: tuple[str, ...]) -> bool:
    """Whether a key of these words names a secret, and not something about one (`token_count`, `has_password`)."""
    letters = tuple(word for word in words if not word.isdigit())
    if not letters:
        return False
    about = letters[-1] in _ABOUT or letters[0] in _ASKS
    if any(pair in _PAIRS for pair in pairwise(letters)):
        return not about or letters[-2:] in _PAIRS
    if letters in _ALONE or (letters[-1] == "auth" and not about):
        return True
    return not about and any(word in _NOUNS or word.endswith(_ENDINGS) for word in letters)


def names_a_scheme(text: str) -> bool:
    """Whether SCHEME can match at all, told at C speed."""
    return "asic" in text or "earer" in text or "ASIC" in text or "EARER" in text


def without_token(match: re.Match[str]) -> str:
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


def without_cards(text: str) -> str:
    """Return the text with each card number replaced."""
    parts: list[str] = []
    kept = position = 0
    while match := _CARD.search(text, position):
        position = match.start() + 1
        if is_card(match[0].replace(" ", "").replace("-", "")):
            parts += text[kept : match.start()], REPLACEMENT
            kept = position = match.end()
    return "".join([*parts, text[kept:]])


def is_card(digits: str) -> bool:
    """The check of ISO/IEC 7812-1 (Luhn), for numbers that some issuer gives out."""
    if not digits.isascii() or not _ISSUERS.fullmatch(digits):
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def secret_at(text: str, pair: re.Match[str], key: str) -> tuple[int, int]:
    """Return where the value behind `pair` begins and ends, without its quotes; empty where it tells nothing."""
    start = pair.end()
    if quoted := _QUOTED.match(text, start):
        return _inside(quoted)
    opened = text[pair.start() - 1 : pair.start()]
    if not pair["flag"] and (_HEADER.search(key) or _CREDENTIALS.match(text, start)):
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
