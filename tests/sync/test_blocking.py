"""The blocking twins have the signatures and docstrings of the async methods."""

import ast
import inspect
import io
import pathlib
import pydoc
import re
import subprocess
import sys
import textwrap
from typing import get_args, get_origin, get_type_hints
from unittest import mock

import pytest

import neuralbox_async
import neuralbox_sync
import neuralbox_sync.web
from neuralbox_async import AsyncBatch, AsyncNeuralBox, AsyncStream, Generation
from neuralbox_sync import Batch, NeuralBox, Stream

TWINS = {
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
AUTOMATIC = {"read_batch"}  # blocking iterators always read in bulk


def parameters(function):
    """Return the parameters of *function* without the first."""
    return list(inspect.signature(function).parameters.values())[1:]


def public(cls):
    """Return the public names of *cls*."""
    return {name for name in vars(cls) if not name.startswith("_") or name in TWINS}


METHODS = sorted(public(AsyncNeuralBox) - {"aclose", "closed"} - set(TWINS))
"""The methods that both clients have."""


@pytest.mark.parametrize("original, view", [(AsyncNeuralBox, NeuralBox), (AsyncStream, Stream), (AsyncBatch, Batch)])
def test_nothing_is_missing(original, view):
    """Each public name of an async class exists in the blocking class, under its blocking name."""
    expected = {TWINS.get(name, name) for name in public(original) - AUTOMATIC}

    assert set() == {name for name in expected if not hasattr(view, name)}


@pytest.mark.parametrize("name", ["__init__", *METHODS])
def test_signatures(name):
    """A twin has the name and the parameters of the async method, with their defaults and annotations, in its order."""
    original, twin = getattr(AsyncNeuralBox, name), getattr(NeuralBox, name)

    assert parameters(original) == parameters(twin)
    assert original.__name__ == twin.__name__
    assert (f"NeuralBox.{name}", True) == (twin.__qualname__, twin.__module__.startswith("neuralbox_sync"))


@pytest.mark.parametrize("name", METHODS)
def test_type_hints(name):
    """The annotations of a twin can be evaluated, as those of the async method; only views are of other classes."""
    views = {AsyncStream: Stream, AsyncBatch: Batch}
    expected = get_type_hints(getattr(AsyncNeuralBox, name))
    view = views.get(get_origin(expected["return"]))
    expected["return"] = expected["return"] if view is None else view[get_args(expected["return"])]

    assert expected == get_type_hints(getattr(NeuralBox, name))


@pytest.mark.parametrize("name", METHODS)
def test_docstrings(name):
    """A twin has the docstring of the async method, with `with` and `for` instead of `async with` and `async for`."""
    original, twin = getattr(AsyncNeuralBox, name).__doc__, getattr(NeuralBox, name).__doc__

    assert original.replace("async with", "with").replace("async for", "for").replace("AsyncBatch", "Batch") == twin
    assert not re.search(r"async with|async for|await|aclose", twin)


@pytest.mark.parametrize("method", [*(getattr(NeuralBox, name) for name in METHODS), Stream.get_final_generation])
def test_docstrings_in_editors(method):
    """In the source, where editors read it, the docstring of a twin is the first paragraph of the whole one."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(method))).body

    assert inspect.getdoc(method).partition("\n\n")[0] == ast.get_docstring(function)


@pytest.mark.parametrize("name", METHODS)
def test_parameters_are_passed_on(name):
    """A twin passes each parameter to the async method, under its own name."""
    subject = mock.create_autospec(AsyncNeuralBox, instance=True)
    client = NeuralBox("nb_test")
    client._subject = subject
    signature = inspect.signature(getattr(client, name))
    # Those that are code of the user are wrapped; these are not.
    unwrapped = {"requests": [], "on_unknown": "skip", "on_progress": None, "api_key": "nb_key"}
    arguments = {name: unwrapped.get(name, mock.Mock(name=name)) for name in signature.parameters}

    with client:
        getattr(client, name)(**arguments)

    (called,) = getattr(subject, name).call_args_list
    bound = inspect.signature(getattr(AsyncNeuralBox("nb_test"), name)).bind(*called.args, **called.kwargs)
    assert arguments == bound.arguments


def test_options_are_passed_on():
    """The constructor passes each parameter to `AsyncNeuralBox`, under its own name."""
    signature = inspect.signature(NeuralBox)
    arguments = {parameter: mock.Mock(name=parameter) for parameter in signature.parameters} | {"api_key": "nb_key"}
    with mock.patch("neuralbox_sync._client.AsyncNeuralBox") as original:
        NeuralBox(**arguments).close()

    (called,) = original.call_args_list
    assert arguments == inspect.signature(AsyncNeuralBox).bind(*called.args, **called.kwargs).arguments


def test_return_annotations():
    """Methods that return a view are annotated with the blocking class."""
    for method, returned in (("generate", Generation), ("stream", Stream), ("generate_many", Batch)):
        hint = get_type_hints(getattr(NeuralBox, method))["return"]
        assert returned is (get_origin(hint) or hint)


def test_help():
    """`help()` shows the methods with their parameters and docstrings."""
    output = io.StringIO()
    pydoc.Helper(output=output).help(NeuralBox)

    # Since Python 3.13 a long signature has a line for each parameter.
    words = " ".join(output.getvalue().replace("|", " ").split()).replace("( self", "(self")
    for expected in (
        "generate(self, model",
        "Generate text and return it whole",
        "stream(self, model",
        "``with client.stream(...) as stream:``",
        "with_options(self",
    ):
        assert expected in words


def test_public_names():
    """Each public name of `neuralbox_async` can be imported from `neuralbox_sync` as well."""
    assert {"Batch", "History", "NeuralBox", "Stream", *neuralbox_async.__all__} == set(neuralbox_sync.__all__)
    assert all(hasattr(neuralbox_sync, name) for name in neuralbox_sync.__all__)
    assert neuralbox_sync.RateLimitError is neuralbox_async.RateLimitError


def test_size():
    """The facade stays thin: under 750 statements, without its signatures and the helpers for web servers."""
    files = set(pathlib.Path(neuralbox_sync.__file__).parent.glob("*.py")) - {pathlib.Path(neuralbox_sync.web.__file__)}
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    overloads = sum("overload" in map(ast.unparse, getattr(node, "decorator_list", [])) for node in nodes)

    assert 750 > sum(isinstance(node, ast.stmt) for node in nodes) - 2 * overloads  # each has one statement, `...`


@pytest.mark.process
def test_import_is_light():
    """Importing the package and making a client does not load aiohttp and starts no thread."""
    code = """
import sys, threading, neuralbox_sync
neuralbox_sync.NeuralBox("nb_test")
assert "aiohttp" not in sys.modules and threading.active_count() == 1
"""

    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})
