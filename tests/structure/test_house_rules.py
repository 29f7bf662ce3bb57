"""The house rules of CONTRIBUTING.md, held against the sources: sizes, imports, excepts, map, effects of an import."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "insitu"
FILES = sorted(PACKAGE.rglob("*.py"))

FILE_LINES = 400
ADAPTER_LINES = 150
FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef
Import = ast.Import | ast.ImportFrom


def room(file: Path) -> str:
    """`core/records` for src/insitu/core/records.py, `core` for its `__init__`."""
    return file.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("__init__").rstrip("/")


def module(file: Path) -> str:
    return ".".join(("insitu", *filter(None, room(file).split("/"))))


TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
MODULES = {module(file) for file in FILES}
every_file = pytest.mark.parametrize("file", FILES, ids=[room(file) or "__init__" for file in FILES])


def code_lines(tree: ast.AST) -> int:
    """Lines on which something stands: no blank lines, no comments, a docstring is one."""
    return len({node.lineno for node in ast.walk(tree) if hasattr(node, "lineno")})


def function_lines(function: Function) -> int:
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - docstring


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def imported(node: Import) -> set[str]:
    """The modules of insitu that one import statement loads."""
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    else:
        names = {f"{node.module}.{alias.name}" for alias in node.names} | {f"{node.module}"}
        names = {name for name in names if name in MODULES}
        names -= {f"{node.module}"} if len(names) > 1 else set()
    return {name for name in names if name.split(".")[0] == "insitu"}


def imports_at_load(node: ast.AST) -> Iterator[Import]:
    """Import statements that run when the module does: not inside functions, not for the type checker alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Import):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif not isinstance(child, Function):
            yield from imports_at_load(child)


def is_broad(caught: ast.expr | None) -> bool:
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(name is None or ast.unparse(name) in {"Exception", "BaseException"} for name in names)


def broad_excepts(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type):
            yield node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            yield from (node.lineno for argument in node.args if is_broad(argument))


def test_there_is_something_to_check() -> None:
    assert PACKAGE / "__init__.py" in FILES


@every_file
def test_a_file_fits_in_the_head(file: Path) -> None:
    assert code_lines(TREES[file]) <= (ADAPTER_LINES if room(file).startswith("adapters/") else FILE_LINES)


@every_file
def test_a_function_fits_on_a_screen(file: Path) -> None:
    sizes = {f"{each.name} (line {each.lineno})": function_lines(each) for each in functions(TREES[file])}
    assert {name: lines for name, lines in sizes.items() if lines > FUNCTION_LINES} == {}


@every_file
def test_own_imports_stand_at_the_top(file: Path) -> None:
    late = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for function in functions(TREES[file])
        for node in ast.walk(function)
        if isinstance(node, Import) and imported(node)
    ]
    assert late == []


@every_file
def test_only_the_runtime_loads_rooms_by_name(file: Path) -> None:
    by_name = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}
        and re.search(r"['\"]insitu\b", ast.unparse(node))
    ]
    assert by_name == [] or room(file) == "runtime"


def test_imports_make_no_cycle() -> None:
    graph = {
        module(file): set().union(*(imported(node) for node in imports_at_load(tree))) - {module(file)}
        for file, tree in TREES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@every_file
def test_only_the_guard_catches_everything(file: Path) -> None:
    assert list(broad_excepts(TREES[file])) == [] or room(file) == "core/guard"


@pytest.mark.parametrize("file", [file for file in FILES if file.name == "__init__.py"], ids=module)
def test_an_init_file_holds_no_logic(file: Path) -> None:
    def is_plain(node: ast.stmt) -> bool:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        dunder = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__")
        return docstring or dunder or isinstance(node, Import)

    assert [ast.unparse(node) for node in TREES[file].body if not is_plain(node)] == []


def test_the_map_in_contributing_names_every_module_and_no_other() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## The map of rooms")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w/]+)` \|", section, flags=re.MULTILINE)
    assert sorted(rows) == sorted(room(file) for file in FILES if file.name != "__init__.py")


def test_the_first_two_commands_of_the_readme_are_one_line_each() -> None:
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    assert [block.count("\n") for block in blocks[:2]] == [1, 1]
    assert blocks[0].endswith("nox -s demo\n")
    assert blocks[1].endswith("nox -s tests\n")


AN_IMPORT_AND_ITS_EFFECTS = """
import gc, json, logging, os, sys, threading
import opentelemetry.trace, opentelemetry.metrics

def state():
    return {
        "threads": threading.active_count(),
        "gc callbacks": len(gc.callbacks),
        "root handlers": len(logging.root.handlers),
        "callHandlers": logging.Logger.callHandlers.__qualname__ + logging.Logger.callHandlers.__module__,
        "excepthooks": [id(sys.excepthook), id(threading.excepthook), id(sys.unraisablehook)],
        "profiled": [sys.getprofile() is not None, sys.gettrace() is not None],
        "tracer provider": type(opentelemetry.trace.get_tracer_provider()).__name__,
        "meter provider": type(opentelemetry.metrics.get_meter_provider()).__name__,
    }

asked = []
ask = os._Environ.__getitem__
os._Environ.__getitem__ = lambda self, key: (asked.append(key), ask(self, key))[1]
before = state()
import insitu
after = state()
own = sorted({key for key in asked if key.startswith("INSITU")})
print(json.dumps({"before": before, "after": after, "own environment": own, "asked": len(asked)}))
"""


def test_importing_insitu_starts_nothing_patches_nothing_and_reads_none_of_its_own_environment() -> None:
    command = [sys.executable, "-W", "error", "-c", AN_IMPORT_AND_ITS_EFFECTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    effects = json.loads(done.stdout)
    assert effects["after"] == effects["before"]
    assert effects["own environment"] == []
