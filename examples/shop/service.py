"""Serve an application on a socket that the demo opened, until the demo closes our standard input.

    python -m examples.shop.service examples.shop.app:app 3

The second argument is the number of the inherited socket. A pipe closes with its owner, however that ended, so no
service outlives the demo.
"""

import asyncio
import logging
import socket
import sys

import uvicorn


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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for chatty in ("httpx", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    target, descriptor = sys.argv[1:]
    asyncio.run(serve(target, socket.socket(fileno=int(descriptor))))


if __name__ == "__main__":
    main()
