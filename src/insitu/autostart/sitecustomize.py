"""What the interpreter imports at its start where `insitu run` has put this folder on PYTHONPATH.

The variable stays, so that the workers which a server starts as new processes are measured, too.
"""

from __future__ import annotations

import importlib
import os
import sys

_HERE = os.path.dirname(__file__)  # noqa: PTH120 pathlib would be imported before the application can say anything


def _import_the_one_behind() -> None:
    """Import the environment's own `sitecustomize`, which this one stands in front of."""
    ours = sys.modules.pop("sitecustomize", None)
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _HERE]  # noqa: PTH100
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours


if not any("multiprocessing.resource_tracker" in word for word in sys.orig_argv):  # which runs nobody's code
    try:
        from insitu import runtime
    except ImportError as failed:
        how = "install it there: pip install insitu"
        print(f"insitu: {sys.executable} cannot import insitu ({failed}); {how}", file=sys.stderr)
    else:
        runtime.start_unasked()
_import_the_one_behind()
