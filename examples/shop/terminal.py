"""What the demo writes: plain lines everywhere, colours and a line that moves where a person is looking."""

import os
import sys
import time
from typing import Final, Literal, TextIO

WIDTH: Final = 100
PLAIN_EVERY = 2.0
"""Seconds between two lines of progress where lines do not move."""
_ERASE = "\r\x1b[K"

Style = Literal["bold", "dim", "red", "green", "yellow", "cyan"]
_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Terminal:
    """Standard output, read by a person or going into a file or a pipe.

    Colours are left out under NO_COLOR (https://no-color.org). `gone` is True once nobody reads any more.
    """

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._moves = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._moves and not os.environ.get("NO_COLOR")
        self._in_progress = False
        self.gone = False
        self._plain_at = 0.0

    def paint(self, text: str, *styles: Style) -> str:
        """Return the text in these styles, or unchanged where colours are not wanted."""
        if not (styles and self._colours):
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Write a line, above the line of progress if there is one."""
        erase, self._in_progress = _ERASE if self._in_progress else "", False
        self._write(f"{erase}{text}\n")

    def progress(self, text: str) -> None:
        """Show how far we are: in place on a terminal, else as a line every few seconds."""
        if self._moves:
            self._write(f"{_ERASE}{text}")
            self._in_progress = True
        elif time.monotonic() >= self._plain_at:
            self._plain_at = time.monotonic() + PLAIN_EVERY - 0.5  # what comes each second may come a little early
            self.line(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            self.gone = True
            # What is still in the stream's buffer must go somewhere when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
