"""The code on the pages has the types that mypy expects of users' code."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap

import pytest
from documents import PAGES, ROOT, blocks

pytest.importorskip("mypy")

# README is checked as strictly as mypy can. Other pages use packages without types, and tests without annotations.
SETTINGS = """\
[mypy]
strict = true
ignore_missing_imports = true
follow_imports = silent
allow_subclassing_any = true
allow_untyped_calls = true
allow_untyped_decorators = true
allow_untyped_defs = true
allow_incomplete_defs = true
warn_return_any = false

[mypy-README_*]
disallow_subclassing_any = true
disallow_untyped_calls = true
disallow_untyped_decorators = true
disallow_untyped_defs = true
disallow_incomplete_defs = true
warn_return_any = true
"""
PIECE = """\
from neuralbox_async import AsyncNeuralBox


async def piece(client: AsyncNeuralBox) -> None:
"""


def awaits_at_top_level(code):
    """Return whether *code* is a piece for an open client."""
    try:
        compile(code, "page", "exec")
    except SyntaxError:
        return True
    return False


def write(folder, name, code):
    if awaits_at_top_level(code):
        ast.parse(code)
        code = PIECE + textwrap.indent(code, "    ")
    (folder / name).write_text(code, encoding="utf-8")


@pytest.mark.process
def test_types(tmp_path):
    """mypy finds no error in any block of Python code."""
    (tmp_path / "mypy.ini").write_text(SETTINGS, encoding="utf-8")
    folder = tmp_path / "pages"
    folder.mkdir()
    pages = [(page, block) for page in PAGES for block in blocks(page, "python")]
    for page, block in pages:
        # `django.md` must not hide Django.
        write(folder, f"{page.stem}_{block.line}_.py".replace("-", "_"), block.code)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "pages"]
    variables = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=200, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert f"no issues found in {len(pages)} source files" in done.stdout
