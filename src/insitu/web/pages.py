"""The page: the files that a browser asks for, served from the package.

Nothing is made up on the server, so that there is nothing to inject into; the page asks `monitoring` for what it shows.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

from insitu.web.messages import Response, problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: scripts and styles are files of ours, and nothing is fetched from elsewhere."""
_KINDS: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
_HOME: Final = "index.html"


class _File(NamedTuple):
    body: bytes
    kind: str
    tag: str


class Pages:
    """Serves the files below one folder.

    Args:
        folder: holds them; read once, at the first request.

    """

    def __init__(self, folder: Traversable | None = None) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}

    def answer(self, name: str, known: str = "") -> Response:
        """Return a file.

        Args:
            name: below the folder; "" is the page itself.
            known: the browser's If-None-Match.

        """
        if not self._files:
            self._files = dict(_read(self._folder or files("insitu.web") / "assets"))
        found = self._files.get(name or _HOME)
        if found is None:
            return problem(404, f"the page has no file {name[:200]}")
        headers = {"etag": found.tag, "cache-control": "no-cache", "content-security-policy": POLICY}
        if known == found.tag:
            return Response(304, b"", found.kind, headers)
        return Response(200, found.body, found.kind, headers)


def _read(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, _File]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
            continue
        kind = _KINDS.get(entry.name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            yield prefix + entry.name, _File(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
