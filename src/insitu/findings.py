"""One line of what `insitu doctor` reports."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "note", "problem"]


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        section: what it is about.
        level: `ok`; `note`: worth knowing; `problem`: something is lost, wrong or done twice.
        text: what was found.
        fix: what to do about it, in one line; "" where there is nothing to do.

    """

    section: str
    level: Level
    text: str
    fix: str = ""
