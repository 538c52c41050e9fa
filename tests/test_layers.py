"""The rooms of the package: which module may import which, and what a start loads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import neuralbox_async
import neuralbox_sync

ASYNC = Path(neuralbox_async.__file__).parent
SYNC = Path(neuralbox_sync.__file__).parent

# Each module may import those before it in its row's list; "below" is every module above it in this table.
LAYERS = {
    "_version": (),
    "_secret": (),
    "_logging": (),
    "_loading": (),
    "_errors": (),
    "_seam": ("_errors", "_loading"),
    "_types": ("_errors",),
    "_sse": ("_errors",),
    "_retry": ("_errors",),
    "_codec": ("_errors", "_types"),
    "_protocol": ("_errors", "_types", "_codec"),
    "_options": ("_errors", "_types", "_retry", "_secret"),
    "_connections": ("_options", "_seam"),
    "_transport": ("_connections", "_errors", "_options", "_seam"),
    "_source": ("_errors", "_seam", "_sse"),
    "_stream": ("_errors", "_loading", "_types", "_codec", "_protocol", "_seam", "_sse", "_source"),
    "_pacing": ("_errors",),
    "_calls": (
        "_errors",
        "_loading",
        "_logging",
        "_options",
        "_pacing",
        "_protocol",
        "_retry",
        "_seam",
        "_secret",
        "_transport",
        "_types",
        "_version",
    ),
    "_keys": ("_loading",),
    "_budget": (),
    "_results": ("_errors", "_types"),
    "_items": ("_errors", "_loading", "_types"),
    "_journal": ("_codec", "_errors", "_keys", "_types"),
    "_jobs": ("_calls", "_errors", "_items", "_journal", "_protocol", "_results", "_types"),
    "_ledger": ("_budget", "_errors", "_items", "_results"),
    "_sending": (
        "_calls",
        "_errors",
        "_jobs",
        "_journal",
        "_logging",
        "_options",
        "_pacing",
        "_protocol",
        "_types",
    ),
    "_run": (
        "_budget",
        "_calls",
        "_errors",
        "_items",
        "_jobs",
        "_journal",
        "_ledger",
        "_loading",
        "_options",
        "_pacing",
        "_results",
        "_sending",
        "_types",
    ),
    "_batch": (
        "_budget",
        "_calls",
        "_errors",
        "_items",
        "_jobs",
        "_journal",
        "_loading",
        "_options",
        "_pacing",
        "_protocol",
        "_results",
        "_run",
    ),
    "_client": (
        "_batch",
        "_calls",
        "_errors",
        "_items",
        "_logging",
        "_options",
        "_protocol",
        "_results",
        "_retry",
        "_seam",
        "_secret",
        "_source",
        "_sse",
        "_stream",
        "_transport",
        "_types",
    ),
}
# Foreign libraries, each in one room.
HOMES = {"aiohttp": {"_connections", "_transport"}, "cattrs": {"_codec"}, "orjson": {"_codec"}}


def imported(path: Path) -> set[str]:
    """Return the modules that *path* imports anywhere, by their full names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def ours(path: Path) -> set[str]:
    return {
        name.split(".")[1]
        for name in imported(path)
        if name.startswith("neuralbox_async.") and name[16] == "_" and name[17] != "_"
    }


@pytest.mark.parametrize("module", LAYERS)
def test_imports_point_down(module):
    """A module imports no more than its row allows."""
    assert ours(ASYNC / f"{module}.py") - {f"{module}"} <= set(LAYERS[module])


def test_every_module_has_a_row():
    """No module is outside the order, and no row names a module that is gone."""
    modules = {path.stem for path in ASYNC.glob("*.py")} - {"__init__", "__main__"}

    assert set(LAYERS) == modules


@pytest.mark.parametrize("library", HOMES)
def test_one_room_for_each_library(library):
    """A foreign library is known in one module only."""
    rooms = {path.stem for path in ASYNC.glob("*.py") if library in {name.split(".")[0] for name in imported(path)}}

    assert HOMES[library] == rooms


@pytest.mark.parametrize(
    "path", [*ASYNC.glob("testing/*.py"), *ASYNC.glob("_cli/*.py"), *SYNC.glob("*.py")], ids=lambda path: path.stem
)
def test_public_names_only(path):
    """What stands on the core uses its public names: the server, the command, and the blocking side."""
    allowed = {"_cli"} if "_cli" in path.parts else {"_loading"} if path.parent == SYNC else set()

    assert ours(path) <= allowed


def loaded_by(program: str) -> set[str]:
    # Measuring what is covered loads modules of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return set(shown.stdout.split())


HEAVY = {
    "aiohttp",
    "cattrs",
    "anyio",
    "asyncio",
    "ssl",
    "socket",
    "_hashlib",
    "pydantic",
    "click",
    "rich",
    "multiprocessing",
    "unittest",
    "pytest",
}


@pytest.mark.parametrize(
    "program, allowed",
    [
        ("import neuralbox_async", set()),
        ("import neuralbox_async; neuralbox_async.AsyncNeuralBox('key')", set()),
        ("import neuralbox_sync", set()),
        ("import neuralbox_async.testing", set()),
        ("import neuralbox_async.testing._pytest_plugin", {"pytest", "unittest", "socket", "_hashlib"}),
    ],
)
def test_what_a_start_loads(program, allowed):
    """Importing loads none of the heavy libraries: they come with the first call."""
    loaded = loaded_by(program)

    assert HEAVY & loaded <= allowed
