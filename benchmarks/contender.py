"""A contender's own process: it runs one round for each line it reads.

`python -m benchmarks.contender MODULE:FUNCTION`: the function of benchmarks/MODULE.py prepares everything and returns
a round (see `timing.Round`). A line on stdin is the round's effort; a JSON object on stdout answers it. Patches and
providers of one contender can so never meet another's.
"""

from __future__ import annotations

import importlib
import json
import os
import sys


def main(name: str) -> None:
    """Prepare the contender, then serve rounds until stdin ends."""
    # What a contender prints (log records are JSON lines on stdout) must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def answer(**fields: object) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    module, _, function = name.partition(":")
    try:
        run = getattr(importlib.import_module(f"benchmarks.{module}"), function)()
        answer(ready=True)
        for line in sys.stdin:
            measured = run(float(line))
            answer(figures=measured if isinstance(measured, dict) else {"": measured})
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        raise
    finally:
        sys.stderr.flush()
    os._exit(0)  # whatever would still flush, join or phone home is no part of a measurement


if __name__ == "__main__":
    main(sys.argv[1])
