"""The packages and root modules: which of them imports which, and which libraries an import loads."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import neuralbox_async
import neuralbox_sync

ASYNC = Path(neuralbox_async.__file__).parent
SYNC = Path(neuralbox_sync.__file__).parent

PUBLIC = "neuralbox_async"  # its public names

# Each package or root module with those that it imports. It may import only those above it, and must import all that
# its row names.
IMPORTS = {
    # Tools.
    "_version": set(),
    "_start": set(),
    "_secret": set(),
    "_logging": set(),
    "_fork_delay": set(),
    "_lazy_imports": {"_fork_delay"},
    "_fast_paths": set(),
    "_errors": set(),
    "_clock": {"_errors", "_fast_paths", "_lazy_imports"},
    # Values and policies.
    "_validation": {"_errors", "_secret"},
    "_images": {"_errors"},
    "_request_members": {"_errors", "_validation"},
    "_response_info": {"_errors", "_secret"},
    "_types": {"_errors", "_images", "_request_members", "_response_info", "_validation"},
    "_observers": {"_errors", "_response_info", "_types"},
    "_usage": set(),
    "_account_types": {"_types"},
    "_parsed": {"_errors", "_types"},
    "_type_parameters": set(),
    "_retry": {"_errors", "_validation"},
    "_async_only": set(),
    "_environment_proxy": {"_secret"},
    "_options": {"_environment_proxy", "_errors", "_retry", "_secret", "_validation"},
    "_api_key": {"_errors", "_lazy_imports", "_options", "_secret"},
    # What the API says.
    "_wire": {"_account_types", "_errors", "_fast_paths", "_parsed", "_types", "_validation"},
    # An output type that is a JSON Schema.
    "_json_schema": {"_parsed", "_wire"},
    # One HTTP exchange.
    "_http": {"_clock", "_errors", "_fast_paths", "_options", "_secret"},
    # One logical call.
    "_call": {
        "_account_types",
        "_api_key",
        "_async_only",
        "_clock",
        "_errors",
        "_http",
        "_lazy_imports",
        "_logging",
        "_observers",
        "_options",
        "_parsed",
        "_response_info",
        "_retry",
        "_secret",
        "_type_parameters",
        "_types",
        "_usage",
        "_validation",
        "_version",
        "_wire",
    },
    # Many calls: nothing of HTTP.
    "_batch": {
        "_account_types",
        "_async_only",
        "_call",
        "_clock",
        "_errors",
        "_lazy_imports",
        "_logging",
        "_observers",
        "_options",
        "_request_members",
        "_parsed",
        "_type_parameters",
        "_types",
        "_validation",
        "_wire",
    },
    # The methods of the client, and the public names.
    "_account_methods": {
        "_account_types",
        "_batch",
        "_call",
        "_errors",
        "_lazy_imports",
        "_options",
        "_usage",
        "_validation",
        "_wire",
    },
    "_parse_methods": {"_call", "_lazy_imports", "_options", "_parsed", "_types", "_wire"},
    "_batch_methods": {"_batch", "_call", "_lazy_imports", "_options", "_type_parameters"},
    "_stream_methods": {"_call", "_lazy_imports", "_options", "_type_parameters", "_types", "_wire"},
    "_client": {
        "_account_methods",
        "_api_key",
        "_async_only",
        "_batch_methods",
        "_call",
        "_clock",
        "_http",
        "_lazy_imports",
        "_logging",
        "_observers",
        "_options",
        "_parse_methods",
        "_retry",
        "_secret",
        "_stream_methods",
        "_types",
        "_validation",
        "_wire",
    },
    # Many calls on several machines.
    "_cluster": {
        "_batch",
        "_call",
        "_client",
        "_clock",
        "_errors",
        "_fork_delay",
        "_lazy_imports",
        "_logging",
        "_options",
        "_types",
        "_validation",
        "_wire",
    },
    "__init__": {
        "_account_types",
        "_api_key",
        "_batch",
        "_call",
        "_client",
        "_errors",
        "_http",
        "_images",
        "_lazy_imports",
        "_observers",
        "_options",
        "_parsed",
        "_response_info",
        "_retry",
        "_start",
        "_types",
        "_usage",
        "_version",
    },
    # Users of the public names.
    "testing": {PUBLIC},
    "web": {PUBLIC},
    "neuralbox_sync": {PUBLIC, "web"},
    "otel": {PUBLIC},
    "dask": {"_batch", "_cluster", "_errors", "_logging", "_options", "_types", "_validation"},
    "ray": {"_batch", "_cluster", "_errors", "_logging", "_validation"},
    "gateway": {PUBLIC},
    "_cli": {PUBLIC, "dask", "gateway", "neuralbox_sync", "testing"},
    "__main__": {"_cli"},
}

# The private modules that users of the public names import all the same.
EXCEPTIONS = {
    ("neuralbox_sync", "_fork_delay"): "forks wait for the end of its thread, too",
    ("neuralbox_sync", "_lazy_imports"): "the blocking client loads as late as the asynchronous one",
    ("_errors", "_types"): "only type checkers read it: an error may have a generation",
    ("neuralbox_sync", "_options"): "its signatures have the defaults of the asynchronous ones",
    ("neuralbox_sync", "_batch.caller_thread"): "the core decides what of the user's code a reading thread runs",
    ("_cli", "_request_members"): "near misses of fields follow one rule in tables and in dicts",
    ("neuralbox_sync", "_api_key"): "its functions that return keys run in the caller's thread",
    ("neuralbox_sync", "_type_parameters"): "its classes have the same type parameter",
    ("_cli", "_parsed"): "the command checks saved answers against a JSON Schema",
    ("_cli", "_json_schema"): "the command makes an output type of a JSON Schema",
    ("_cli", "_wire.output_types"): "only type checkers read it: the type of what that makes",
    ("gateway", "_json_schema"): "so does the gateway, of a response format",
    ("otel", "_observers"): "it observes every client of the process",
    ("_cli", "_options"): "the help of the command shows the defaults",
    ("_cli", "_cluster.plan"): "the command makes the settings of a batch on a cluster",
    ("_cli", "_cluster.row_results"): "only type checkers read it: the results of that",
    ("_cli", "_batch.inputs"): "the command checks the rows of a batch on a cluster before it starts",
    ("_cli", "_batch.journal"): "they are checked against the journal",
    ("_cli", "_batch.journal_import"): "the command has results put into the journal before it replaces the output",
    ("_cli", "_batch.changed_requests"): "the command finds out which rows are sent again",
    ("_cli", "_batch.typed_items"): "the hash of a row has its schema",
    ("_cli", "_batch.key_index"): "the command finds duplicate keys of any number of rows, as a batch does",
}

# The modules of `_http` that others import: the protocol, and where a call makes its default implementation.
HTTP_IMPORTS = {
    "_http.transport": {
        "__init__",
        "_call.executor",
        "_call.generating",
        "_call.record",
        "_call.shared_state",
        "_call.stream_lifetime",
        "_call.stream_reader",
        "_client",
    },
    "_http.aiohttp_transport": {"_call.shared_state"},
}

# Libraries that only some packages or modules import.
LIBRARIES = {
    "aiohttp": {"_http", "gateway", "testing", "web"},
    "cattrs": {"_wire.output_hooks", "_wire.output_problems", "_wire.output_structuring", "_wire.structuring"},
    "orjson": {"_wire.json"},
    "opentelemetry": {"otel"},
    "dask": {"dask"},
    "distributed": {"dask"},
    "django": {"web._django"},
    "flask": {"neuralbox_sync"},
    "starlette": {"web._starlette"},
    "click": {"_cli"},
    "jsonschema": {"_json_schema"},
    "referencing": {"_json_schema"},
    "rich": {"_cli"},
}


def module_name(path: Path) -> str:
    """Return the name of the module in the file *path*: without ``neuralbox_async``, so ``_call.stream``."""
    root = ASYNC if path.is_relative_to(ASYNC) else SYNC.parent
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted([*ASYNC.rglob("*.py"), *SYNC.rglob("*.py")])}


def package(module: str) -> str:
    """Return the package of a *module*, or the name of a root module."""
    return module.partition(".")[0]


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Return the full names that *path* imports anywhere: modules, and modules with an attribute."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def target(name: str) -> str | None:
    """Return our module that the full *name* imports from, `PUBLIC` for a public name, or None for other packages."""
    top, _, rest = name.partition(".")
    if top == "neuralbox_sync":
        return "neuralbox_sync"
    if top != "neuralbox_async":
        return None
    if rest in {"", "*", *neuralbox_async.__all__}:
        return PUBLIC
    while rest not in MODULES:
        rest, dot, _ = rest.rpartition(".")
        assert dot, f"{name} is neither a module nor a public name"
    return rest


def our_imports(*, of: str) -> set[str]:
    """Return the modules, and `PUBLIC`, that the package or root module *of* imports from others."""
    paths = [path for module, path in MODULES.items() if package(module) == of]
    targets = {target(name) for path in paths for name in imported(path)} - {None}
    return {name for name in targets if package(name) != of}


@pytest.mark.parametrize("name", IMPORTS)
def test_imports(name):
    """A package imports exactly those that its row names, and exactly its exceptions."""
    exceptions = {module for importer, module in EXCEPTIONS if importer == name}
    found = our_imports(of=name)

    assert exceptions <= found
    assert IMPORTS[name] == {package(module) for module in found - exceptions}


def test_every_package_has_a_row():
    """The table has a row for each package and each root module, and no other."""
    assert set(IMPORTS) == {package(module) for module in MODULES}


def test_imports_point_up_in_the_table():
    """A row names only packages above it, so there are no cycles."""
    order = list(IMPORTS)

    for name, imports in IMPORTS.items():
        assert imports - {PUBLIC} <= set(order[: order.index(name)])


@pytest.mark.parametrize("name", HTTP_IMPORTS)
def test_modules_that_import_http(name):
    """Of `_http`, others import only the protocol; one module imports the implementation."""
    importers = {
        module
        for module, path in MODULES.items()
        if package(module) != "_http" and name in {target(full) for full in imported(path)}
    }
    modules = {module for other in set(IMPORTS) - {"_http"} for module in our_imports(of=other)}

    assert HTTP_IMPORTS[name] == importers
    assert set(HTTP_IMPORTS) == {module for module in modules if package(module) == "_http"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_modules_that_import_a_library(library):
    """A library is imported by exactly the packages, or the module, that its row names."""
    importers = {
        module for module, path in MODULES.items() if library in {full.partition(".")[0] for full in imported(path)}
    }
    rows = LIBRARIES[library]

    assert rows == {module if module in rows else package(module) for module in importers}


def loaded_by(program: str) -> set[str]:
    # The measurement of coverage loads modules of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", f"import sys; {program}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


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


@pytest.mark.process
@pytest.mark.parametrize(
    "program, allowed",
    [
        ("import neuralbox_async", set()),
        ("import neuralbox_async; neuralbox_async.AsyncNeuralBox('key')", set()),
        ("import neuralbox_sync", set()),
        ("import neuralbox_async.testing", set()),
        ("import neuralbox_async.web, neuralbox_sync.web", {"anyio", "asyncio", "ssl", "socket", "_hashlib"}),
        ("import neuralbox_async.testing._pytest_plugin", {"pytest", "unittest", "socket", "_hashlib"}),
    ],
)
def test_imports_load_no_heavy_library(program, allowed):
    """An import loads none of the heavy libraries; the first call does."""
    loaded = loaded_by(program)

    assert HEAVY & loaded <= allowed
