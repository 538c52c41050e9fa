"""One owner writes a fact: the constructors of errors, and `Call.annotate`, set the facts of errors."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

import neuralbox_async
import neuralbox_sync

PACKAGES = [Path(package.__file__).parent for package in (neuralbox_async, neuralbox_sync)]
FACTS = {"billed", "request_sent", "attempts", "elapsed", "generation_id"}
# Values of other classes, which have attributes of the same names.
NOT_ERRORS = {
    ("neuralbox_async/_batch/journal.py", "unresolved"),
    ("neuralbox_async/testing/_store.py", "generation"),
}
ANNOTATE = ("neuralbox_async/_call/executor.py", "Call", "annotate")


def writes(tree):
    """Yield class, function, target and attribute of each write of a fact in a module."""

    def visit(node, cls, function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from visit(child, child.name, function)
                continue
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from visit(child, cls, child.name)
                continue
            if isinstance(child, ast.Attribute) and not isinstance(child.ctx, ast.Load) and child.attr in FACTS:
                yield cls, function, ast.unparse(child.value), child.attr
            if isinstance(child, ast.Call) and ast.unparse(child.func).endswith(("setattr", "__setattr__")):
                names = [arg.value for arg in child.args if isinstance(arg, ast.Constant)]
                yield from ((cls, function, ast.unparse(child), name) for name in names if name in FACTS)
            yield from visit(child, cls, function)

    yield from visit(tree, None, None)


@functools.cache
def modules():
    """Return the syntax trees of the packages by file."""
    return {
        path.relative_to(package.parent).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in sorted(package.rglob("*.py"))
        if any(fact in path.read_text(encoding="utf-8") for fact in FACTS)
    }


def test_only_owners_write_facts():
    """No module sets a fact of an error but the constructors in `_errors` and `Call.annotate`."""
    strangers = []
    for module, tree in modules().items():
        for cls, function, target, fact in writes(tree):
            # An object may write an attribute of the same name on itself, an error only in its constructor.
            own = target == "self" and (module != "neuralbox_async/_errors.py" or function == "__init__")
            if not own and (module, cls, function) != ANNOTATE and (module, target) not in NOT_ERRORS:
                strangers.append(f"{module}: {cls}.{function} sets {target}.{fact}")

    assert [] == strangers


def test_annotate_is_found():
    """`Call.annotate` sets each fact that a constructor cannot know."""
    tree = modules()[ANNOTATE[0]]

    assert {"attempts", "elapsed", "billed", "request_sent", "generation_id"} == {
        fact for cls, function, _, fact in writes(tree) if (cls, function) == ANNOTATE[1:]
    }


@pytest.mark.parametrize(
    "source, targets",
    [
        ("error.billed = 'no'", ["error"]),
        ("error.billed, error.text = 'no', ''", ["error"]),
        ("a.error.attempts += 1", ["a.error"]),
        ("setattr(error, 'elapsed', 1)", ["setattr(error, 'elapsed', 1)"]),
        ("with f() as error.generation_id: pass", ["error"]),
        ("print(error.billed)", []),
    ],
)
def test_writes_are_recognised(source, targets):
    """Each way to write an attribute is recognised."""
    assert targets == [target for _, _, target, _ in writes(ast.parse(source))]
