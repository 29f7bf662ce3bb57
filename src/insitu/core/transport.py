"""Everything that leaves this process over a network: HTTP, with timeouts, retries and a breaker.

Waits and verdicts follow the OTLP/HTTP specification ("Failures", "Retryable response codes"): 429, 502, 503, 504 and
broken connections are tried again with exponential backoff and jitter, `Retry-After` is obeyed, anything else is final.
The deadline covers the retries too, as OTEL_EXPORTER_OTLP_TIMEOUT does.

TLS is always verified; a private authority is trusted by `certificate`. There is no switch to turn that off.
One thing cannot be bounded from within a thread: the name lookup of the C library, which has its own limits.
"""

from __future__ import annotations

import base64
import gzip as gzip_format
import http.client
import io
import os
import random
import re
import socket
import time
import urllib.request
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import unquote

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, LocationValueError, NewConnectionError
from urllib3.util import parse_url

from insitu.core import context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from urllib3.util import Url

Outcome = Literal["ok", "refused", "unreachable", "stopped"]

BODY_CAP: Final = 64 * 1024
ATTEMPTS: Final = 6
BACKOFF: Final = 1.0
BACKOFF_CAP: Final = 30.0
RETRY_AFTER_CAP: Final = 3600.0
BREAKER_AFTER: Final = 5
BREAKER_CAP: Final = 60.0
LAST_TRY: Final = 1.0
"""Seconds for the one more try of a batch that was waiting when the process began to stop."""

# Of 512 spans (142 kB) level 1 leaves 20.2 % for 1.3 ms, level 6 19.0 % for 2.7 ms: the last hundredth costs double.
_GZIP_LEVEL: Final = 1
_SLICE: Final = 64 * 1024
_MOMENT: Final = 0.001
_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_FIELD: Final = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")  # RFC 9110, 5.5, without the second set of control characters


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request came to.

    Attributes:
        outcome: `ok`; `refused`, the server said no and would say it again; `unreachable`, given up after the retries,
            at the deadline or because the breaker is open; `stopped`, given up because the process is stopping.
        status: of the last response, 0 where there was none.
        body: of the last response, at most 64 kB; empty where it could not be read in time.
        attempts: requests made.
        detail: for people: at most 200 characters, and nothing of the address, the headers or the body.
        retry_after: seconds that the server (or the open breaker) asks to be left alone.

    """

    outcome: Outcome
    status: int
    body: bytes
    attempts: int
    detail: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    detail: str
    retry_after: float | None

    def reply(self, outcome: Outcome, attempts: int) -> Reply:
        return Reply(outcome, self.status, self.body, attempts, self.detail[:200], self.retry_after)

    @property
    def verdict(self) -> Outcome:
        if not self.status or self.status in _RETRYABLE:
            return "unreachable"
        return "ok" if HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES else "refused"


class Transport:
    """Sends bodies to one back-end, and stops trying while it does not answer.

    For one thread (an exporter's sender). Connections are opened on first use and kept; a forked child opens its own.
    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are honoured. Redirects are not followed.

    Args:
        user_agent: value of User-Agent.
        wait: pauses for some seconds, and returns True (early) when the process is stopping.
        timeout: seconds that one request, or a whole `post` without a deadline, may take.
        headers: sent with every request.
        gzip: compress bodies.
        certificate: file or folder of authorities to trust instead of the system's.
        client_certificate: file with the certificate that the server asks for.
        client_key: file with its key, where the certificate's file does not hold it.
        monotonic: seconds from any start.

    Raises:
        ValueError: a header that cannot be sent as it is, such as one with a line break. Its value is not in the text.

    """

    def __init__(
        self,
        *,
        user_agent: str,
        wait: Callable[[float], bool],
        timeout: float = 10.0,
        headers: Mapping[str, str] | None = None,
        gzip: bool = False,
        certificate: str | None = None,
        client_certificate: str | None = None,
        client_key: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._headers = checked({"User-Agent": user_agent, **(headers or {})})
        self._wait = wait
        self._timeout = timeout
        self._gzip = gzip
        authorities = "ca_cert_dir" if certificate and os.path.isdir(certificate) else "ca_certs"  # noqa: PTH112
        self._tls = {authorities: certificate, "cert_file": client_certificate, "key_file": client_key}
        self._monotonic = monotonic
        self.reset()

    def reset(self) -> None:
        """Forget connections and failures, as a forked child must: its copies are the parent's conversations."""
        self._pid = os.getpid()
        self._pools: dict[str | None, PoolManager] = {}
        self._breaker = _Breaker(self._monotonic)
        # Our own: drawing from the module's generator would shift the numbers of a host that has seeded it.
        self._random = random.Random().random  # noqa: S311 - spreads retries, keeps no secret

    def close(self) -> None:
        """Close the kept connections. A later `post` opens new ones."""
        for manager in self._pools.values():
            # `clear` would leave the sockets to the garbage collector, and a strict host to its warnings.
            for key in manager.pools.keys():  # noqa: SIM118 it cannot be iterated
                manager.pools[key].close()
            manager.clear()
        self._pools = {}

    @property
    def breaker_open(self) -> bool:
        """Whether requests are being withheld: from the fifth failure in a row until one gets through."""
        return self._breaker.is_open

    def post(
        self,
        url: str,
        body: bytes,
        *,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Reply:
        """Send a body and return what came of it; a network's failures are never raised.

        Credentials in the address become a Basic Authorization header, unless there is one already.

        Args:
            url: http or https address.
            body: as it is; compressed here where the transport was told to.
            content_type: value of Content-Type.
            headers: beside the transport's own, and stronger.
            deadline: seconds for all attempts and pauses together; default the transport's timeout.

        Raises:
            ValueError: as on construction, for a header given here.

        """
        extra = checked({"Content-Type": content_type, **(headers or {})})
        if self._pid != os.getpid():
            self.reset()
        target = _target(url)
        if target is None:
            return Reply("refused", 0, b"", 0, "not an http or https address", None)
        if quiet := self._breaker.quiet():
            return Reply("unreachable", 0, b"", 0, f"not tried: it failed before, next try in {quiet:.0f} s", quiet)
        fields = _merged(_basic(target), self._headers, extra)
        if self._gzip:
            body, fields["Content-Encoding"] = gzip_format.compress(body, _GZIP_LEVEL, mtime=0), "gzip"
        ends = self._monotonic() + (self._timeout if deadline is None else deadline)
        ours = context.suppress()  # on a thread of the application, too: `insitu doctor` asks from there
        try:
            reply = self._until(ends, target._replace(auth=None), body, fields)
        finally:
            context.leave(ours)
        self._breaker.note(reply)
        return reply

    def _until(self, ends: float, target: Url, body: bytes, fields: dict[str, str]) -> Reply:
        attempts, stopping = 0, False
        limit = 1 if self._breaker.is_open else ATTEMPTS  # an open breaker lets one probe through
        while True:
            left = max(ends - self._monotonic(), _MOMENT)
            answer = self._attempt(target, body, fields, min(left, LAST_TRY if stopping else self._timeout))
            attempts += 1
            verdict = answer.verdict
            if verdict != "unreachable" or stopping:
                return answer.reply("stopped" if verdict == "unreachable" else verdict, attempts)
            pause = answer.retry_after
            if pause is None:
                pause = self._random() * min(BACKOFF_CAP, BACKOFF * 2 ** (attempts - 1))
            if attempts >= limit or pause >= ends - self._monotonic():
                return answer.reply("unreachable", attempts)
            stopping = self._wait(pause)
            if stopping and answer.retry_after is not None:  # the server's word holds while we stop, too
                return answer.reply("stopped", attempts)

    def _attempt(self, target: Url, body: bytes, fields: dict[str, str], seconds: float) -> _Answer:
        try:
            response = self._pool(target).request(
                "POST",
                target.url,
                body=body,
                headers=fields,
                timeout=Timeout(total=seconds),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError, http.client.HTTPException) as error:
            return _Answer(0, b"", _said(error), None)
        return _read(response)

    def _pool(self, target: Url) -> PoolManager:
        address = _proxy(target)
        if address not in self._pools:
            self._pools[address] = self._new_pool(address)
        return self._pools[address]

    def _new_pool(self, proxy: str | None) -> PoolManager:
        options: dict[str, Any] = {**self._tls, "cert_reqs": "CERT_REQUIRED", "timeout": Timeout(total=self._timeout)}
        if proxy is None:
            pool = PoolManager(**options)
        else:
            via = parse_url(proxy if "://" in proxy else f"http://{proxy}")
            login = {f"Proxy-{name}": value for name, value in _basic(via).items()}
            pool = ProxyManager(via._replace(auth=None).url, proxy_headers=login, **options)
        pool.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return pool


class _Breaker:
    """After five failures in a row: silence, one probe, and a longer silence if that fails as well."""

    __slots__ = ("_failures", "_monotonic", "_until")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failures = 0
        self._until = monotonic()

    @property
    def is_open(self) -> bool:
        return self._failures >= BREAKER_AFTER

    def quiet(self) -> float:
        """Return the seconds during which nothing is sent."""
        return max(0.0, self._until - self._monotonic())

    def note(self, reply: Reply) -> None:
        if reply.outcome == "stopped":
            return
        if reply.outcome != "unreachable":
            self._failures = 0
            return
        self._failures += 1
        silence = reply.retry_after or 0.0  # asked for by the server, and longer than that batch could wait
        if self.is_open:
            silence = max(silence, 2.0 ** (self._failures - BREAKER_AFTER + 1))
        self._until = self._monotonic() + min(silence, BREAKER_CAP)


class _Bounded:
    """Mixed into urllib3's connections: one point in time ends connecting, sending, waiting and reading together.

    urllib3 and the socket module count their timeout anew for every address of a host, every part of a TLS message and
    every byte received, so that a server which drips keeps its client for ever. Here a timeout, once set, runs out:
    reading it gives what is left. The host's clock is meant, whatever clock the transport goes by.
    """

    sock: Any  # a socket, or what TLS puts around it
    port: int
    socket_options: Any
    _dns_host: str
    _ends: float | None

    @property
    def timeout(self) -> float | None:
        return None if self._ends is None else max(self._ends - time.monotonic(), _MOMENT)

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._ends = None if seconds is None else time.monotonic() + seconds

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that answers; each may take its share, so that a dead one cannot use up all."""
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, "not the name of a host") from error
        failure = OSError("the host has no address")
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(cast("float", self.timeout) / (len(addresses) - tried))
                sock.connect(address)
                sock.settimeout(self.timeout)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        # Of a plain reset urllib3 would think that it came while it sent, and look for an answer.
        raise NewConnectionError(cast("HTTPConnection", self), str(failure)) from failure

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE):
            if self.sock is not None:
                self.sock.settimeout(self.timeout)
            super().send(data[start : start + _SLICE])  # type: ignore[misc]

    def response_class(self, sock: Any, *args: Any, **named: Any) -> http.client.HTTPResponse:
        reader: Any = _Reader(sock, cast("float", self._ends))
        return http.client.HTTPResponse(reader, *args, **named)


class _Reader(io.RawIOBase):
    """The receiving side of a socket until a point in time; http.client asks its socket for nothing but `makefile`."""

    def __init__(self, sock: Any, ends: float) -> None:
        super().__init__()
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._ends = ends

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Connection(_Bounded, HTTPConnection):  # type: ignore[misc]
    pass


class _TLSConnection(_Bounded, HTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


def checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers if each can stand in a message as it is.

    Raises:
        ValueError: a name that is no token, or a value with a control character or one beyond Latin-1.

    """
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"not the name of a header: {name[:60]!r}")
        if not _FIELD.fullmatch(value):
            raise ValueError(f"the value of the header {name} has characters that no header may have")
    return dict(headers)


def _merged(*layers: Mapping[str, str]) -> dict[str, str]:
    """Later layers win, and names differ only by more than case."""
    found = {name.lower(): (name, value) for layer in layers for name, value in layer.items()}
    return dict(found.values())


def _target(url: str) -> Url | None:
    try:
        target = parse_url(url)
    except LocationValueError:
        return None
    return target if target.scheme in {"http", "https"} and target.host else None


def _basic(target: Url) -> dict[str, str]:
    if not target.auth:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(unquote(target.auth).encode()).decode()}


def _proxy(target: Url) -> str | None:
    known = urllib.request.getproxies_environment()  # not the settings of macOS: asking after a fork crashes
    host = (target.host or "").strip("[]")
    if not known or urllib.request.proxy_bypass(host):
        return None
    return known.get(target.scheme or "") or known.get("all")


def _read(response: BaseHTTPResponse) -> _Answer:
    """Take the body if it comes. The status alone says what the server did: a cut body is no reason to send again."""
    body, detail = b"", _phrase(response.status)
    try:
        body = response.read(BODY_CAP, decode_content=False)
        if len(body) < BODY_CAP and response.length_remaining:  # urllib3 gives what came before the end, and no error
            body, detail = b"", f"{detail}, but its body broke off"
    except (HTTPError, OSError, http.client.HTTPException) as error:
        detail += f", but its body broke off ({_said(error)})"
    finally:
        response.close()  # ends what was not read to its end; a connection read to its end is back in the pool
    return _Answer(response.status, body, detail, _retry_after(response.headers))


def _phrase(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _said(error: BaseException) -> str:
    """Name the innermost error: the texts of the outer ones hold addresses."""
    while isinstance(inner := error.args[-1] if error.args else None, BaseException) or (inner := error.__cause__):
        error = inner
    text = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait. A date is held against the server's own, so that no clock of ours matters."""
    asked = headers.get("Retry-After", "").strip()
    if not asked:
        return None
    if asked.isascii() and asked.isdecimal():
        return min(float(asked[:10]), RETRY_AFTER_CAP)
    try:
        seconds = (parsedate_to_datetime(asked) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_CAP)
