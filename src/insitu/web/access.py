"""Who may read insitu's own pages: this machine, or whoever holds the token."""

from __future__ import annotations

import base64
import hmac
import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FORWARDED: Final = ("forwarded", "via", "x-forwarded-", "x-real-ip")
"""How the names of headers begin that a proxy adds."""
REFUSAL: Final = (
    "insitu answers this page to loopback only. From elsewhere set INSITU_TOKEN (or insitu.init(token=...)) "
    "and send 'Authorization: Bearer <token>'; in Prometheus: authorization: {credentials: <token>}.\n"
)


def allowed(peer: str | None, headers: Mapping[str, str], token: str | None) -> bool:
    """Whether a request may read.

    Args:
        peer: address of the socket's other end; None for a Unix socket.
        headers: names in lower case, values as Latin-1.
        token: the secret, or None where only this machine may read.

    A loopback peer counts only with a loopback Host header (a page of another site may have had its name rebound to
    us) and without any
    forwarding header: behind a local proxy everybody comes from loopback.

    """
    if token and hmac.compare_digest(_given(headers.get("authorization", "")), token.encode()):
        return True
    return (
        is_loopback(peer)
        and is_loopback(host_name(headers.get("host", "")))
        and not any(name.startswith(FORWARDED) for name in headers)
    )


def _given(authorization: str) -> bytes:
    """Return the secret of an Authorization header: a bearer's token, or the password that a browser has asked for."""
    scheme, _, given = authorization.partition(" ")
    # A header's bytes were read as Latin-1.
    secret = given.strip().encode("latin-1", "replace")
    if scheme.lower() == "bearer":
        return secret
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(secret, validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return b""


def host_name(host: str) -> str:
    """Return a Host header's name without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_loopback(address: str | None) -> bool:
    """Whether an address or name is this machine's loopback."""
    if not address:
        return False
    if address.lower().rstrip(".") == "localhost":
        return True
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return parsed.is_loopback or (mapped is not None and mapped.is_loopback)
