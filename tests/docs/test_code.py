"""Every block of Python code in the documentation runs unchanged."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys

import pytest
from documents import PAGES, ROOT, blocks, program_name

from neuralbox_async import AsyncNeuralBox

BLOCKS = [block for page in PAGES for block in blocks(page, "python")]
COPIES = [block for block in BLOCKS if block.source is not None]
# Tested by test_programs.py and test_web_programs.py.
PROGRAMS = [block for block in BLOCKS if program_name(block) is not None]
OTHERS = [block for block in BLOCKS if block not in COPIES and block not in PROGRAMS]
TESTS = [block for block in OTHERS if re.search(r"^(async )?def test_", block.code, re.MULTILINE)]
PIECES = [block for block in OTHERS if block not in TESTS]

SETTINGS = """\
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def test_kinds_of_blocks():
    """The pages have complete programs, pieces of code and tests."""
    assert {"examples/web_backend.py", "examples/batch.py", "examples/blocking.py"} == {copy.source for copy in COPIES}
    assert len(PIECES) >= 15
    assert len(TESTS) >= 5


@pytest.mark.parametrize("copy", COPIES, ids=str)
def test_copy(copy):
    """A program on a page is identical to the tested file."""
    assert (ROOT / copy.source).read_text(encoding="utf-8") == copy.code


@pytest.mark.parametrize("piece", PIECES, ids=str)
def test_piece(piece, server, capsys):
    """A piece of code runs alone, with an open client if it awaits at top level, and prints no errors."""
    if "import distributed" in piece.code:
        pytest.importorskip("distributed")
    if "import ray" in piece.code:
        pytest.skip("tests/ray runs the code of this page, on its cluster")
    code = compile(piece.code, str(piece), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {"__name__": "__main__"}
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(_run_with_client(code, names))
    else:
        exec(code, names)  # noqa: S102 - the pages are our own

    assert "" == capsys.readouterr().err


async def _run_with_client(code, names):
    async with AsyncNeuralBox() as client:
        names["client"] = client
        await eval(code, names)  # noqa: S307 - the pages are our own


@pytest.mark.process
def test_tests(run, tmp_path):
    """The tests on the pages pass in a project of their own, and pytest collects every one of them."""
    (tmp_path / "pytest.ini").write_text(SETTINGS, encoding="utf-8")
    for number, block in enumerate(TESTS):
        (tmp_path / f"test_{number}.py").write_text(block.code, encoding="utf-8")
    # Only these plugins: the entry point of an installed package would load ours a second time.
    plugins = ("-p", "neuralbox_async.testing._pytest_plugin", "-p", "pytest_asyncio.plugin")
    done = run(sys.executable, "-m", "pytest", "-q", *plugins, env=_without_plugins())

    assert 0 == done.returncode, done.stdout
    passed = sum(len(re.findall(r"^(?:async )?def test_", block.code, re.MULTILINE)) for block in TESTS)
    assert f"{passed} passed" in done.stdout


def _without_plugins():
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    # In that process pytest handles warnings, and aioresponses intercepts all requests to the API.
    for name in ("PYTHONWARNINGS", "NEURALBOX_BASE_URL"):
        del environment[name]
    return environment
