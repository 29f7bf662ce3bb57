"""Serve an application on a socket that the demo opened, until the demo closes our standard input.

    python -m examples.shop.service examples.shop.app:app 3

The second argument is the number of the inherited socket. A pipe closes with its owner, however that ended, so no
service outlives the demo.
"""

import asyncio
import logging
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import uvicorn


class Brief(logging.Formatter):
    """Says of an exception what it is and where it was raised: uvicorn logs the failures with sixty lines each."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 logging's name
        """Return one line."""
        kind, error, trace = ei
        *_, frame = traceback.extract_tb(trace) or [None]
        where = f" ({Path(frame.filename).name}, line {frame.lineno})" if frame else ""
        return f"{kind.__name__}: {error}{where}"


async def serve(target: str, listener: socket.socket) -> None:
    """Serve until standard input closes, or a signal says so; open requests get three seconds to finish."""
    config = uvicorn.Config(target, log_config=None, access_log=False, timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(sys.stdin)
        server.should_exit = True

    loop.add_reader(sys.stdin, end)
    await server.serve(sockets=[listener])


def main() -> None:
    """Run the service that the command line names."""
    handler = logging.StreamHandler()
    handler.setFormatter(Brief("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("httpx", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    target, descriptor = sys.argv[1:]
    asyncio.run(serve(target, socket.socket(fileno=int(descriptor))))


if __name__ == "__main__":
    main()
