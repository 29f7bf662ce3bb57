"""Processes of the demo, each of which lives no longer than its parent."""

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 8.0
"""Seconds for a process to end by itself."""
REMEMBERED = 12
"""How many last lines of a process's standard error are kept."""

LONGEST_LINE = 2**20
"""Bytes of one line of output."""


class Died(Exception):
    """A process ended before it was told to."""


@dataclass(slots=True)
class Child:
    """A process that we started. It ends when its standard input closes, which also happens when we are killed."""

    name: str
    process: asyncio.subprocess.Process
    echo: Callable[[str], None]
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    listening: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self.listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        """Remember the last lines of its standard error, and pass each one on."""
        assert self.process.stderr
        async for line in self.process.stderr:
            text = line.decode(errors="replace").rstrip()
            self.last_lines.append(text)
            self.echo(f"{self.name}: {text}")

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield what it writes to its standard output, until it ends."""
        assert self.process.stdout
        async for line in self.process.stdout:
            yield line

    async def obituary(self) -> str:
        """Say how it ended, with its last words."""
        await asyncio.wait({self.listening}, timeout=1)
        code = self.process.returncode or 0
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        words = "".join(f"\n    {line}" for line in self.last_lines) or "\n    (nothing on its standard error)"
        return f"{self.name} {how}. Its last lines:{words}"

    def dismiss(self) -> None:
        """Tell the process to finish what it does and end."""
        assert self.process.stdin
        self.process.stdin.close()

    async def end(self) -> None:
        """Make sure that the process is gone: by asking, by SIGTERM, by SIGKILL."""
        self.dismiss()
        for insist in (self.process.terminate, self.process.kill):
            try:
                await asyncio.wait_for(self.process.wait(), PATIENCE)
            except TimeoutError:
                insist()
        await self.process.wait()


@contextlib.asynccontextmanager
async def start(
    name: str,
    *command: str,
    environment: Mapping[str, str] | None = None,
    descriptor: int | None = None,
    echo: Callable[[str], None],
) -> AsyncIterator[Child]:
    """Start a module with our Python, and end it on the way out.

    Args:
        name: What messages call it.
        command: The module, and its arguments.
        environment: Variables beside our own.
        descriptor: A file descriptor that it inherits.
        echo: Gets every line of its standard error.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE if descriptor is None else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
        pass_fds=() if descriptor is None else (descriptor,),
        start_new_session=True,  # Ctrl-C is for us alone: the shop must live until we have read its last figures
    )
    child = Child(name, process, echo)
    try:
        yield child
    finally:
        await child.end()
        await child.listening


async def while_alive(work: Awaitable[T], *children: Child) -> T:
    """Return what the work returns.

    Raises:
        Died: One of the processes ended first.
    """
    task = asyncio.ensure_future(work)
    deaths = {asyncio.create_task(child.process.wait()): child for child in children}
    try:
        await asyncio.wait({task, *deaths}, return_when=asyncio.FIRST_COMPLETED)
        for death, child in deaths.items():
            if death.done():
                raise Died(await child.obituary())
        return await task
    finally:
        for pending in (task, *deaths):
            pending.cancel()
