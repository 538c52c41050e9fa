"""The blocking twins look, to users and their tools, like the asynchronous methods that they stand for."""

import asyncio
import inspect
import io
import pathlib
import pydoc
import subprocess
import sys

import pytest

import neuralbox_async
import neuralbox_sync
from neuralbox_async import AsyncBatch, AsyncNeuralBox, AsyncStream
from neuralbox_sync import Batch, NeuralBox, Stream

TWINS = {
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
BY_ITSELF = {"read_batch", "reset_after_fork"}  # what a blocking object does without being told


def parameters(function):
    """Return the parameters of *function* without the first."""
    return list(inspect.signature(function).parameters.values())[1:]


def public(cls):
    """Return the names of what *cls* offers."""
    return {name for name in vars(cls) if not name.startswith("_") or name in TWINS}


@pytest.mark.parametrize("original, view", [(AsyncNeuralBox, NeuralBox), (AsyncStream, Stream), (AsyncBatch, Batch)])
def test_nothing_is_missing(original, view):
    """Whatever is public on the asynchronous side is there on the blocking side, under its blocking name."""
    expected = {TWINS.get(name, name) for name in public(original) - BY_ITSELF}

    assert set() == {name for name in expected if not hasattr(view, name)}


@pytest.mark.parametrize("name", sorted(public(AsyncNeuralBox) - BY_ITSELF - {"aclose", "closed"} - set(TWINS)))
def test_signatures(name):
    """A twin has the name, the parameters and the docstring of its original, and is no coroutine function."""
    original, twin = getattr(AsyncNeuralBox, name), getattr(NeuralBox, name)

    assert parameters(original) == parameters(twin)
    assert (original.__name__, original.__doc__) == (twin.__name__, twin.__doc__)
    assert original is inspect.unwrap(twin)
    assert not inspect.iscoroutinefunction(twin)


def test_constructor():
    """The constructor takes what that of `AsyncNeuralBox` takes."""
    assert inspect.signature(AsyncNeuralBox).parameters == inspect.signature(NeuralBox).parameters


def test_what_is_returned():
    """Signatures name the blocking view where one is returned, and the plain result elsewhere."""
    assert "Generation" == inspect.signature(NeuralBox.generate).return_annotation
    assert Stream is inspect.signature(NeuralBox.stream).return_annotation
    assert Batch is inspect.signature(NeuralBox.generate_many).return_annotation


def test_help():
    """`help()` shows the methods with their parameters and what they do."""
    shown = io.StringIO()
    pydoc.Helper(output=shown).help(NeuralBox)

    # Since Python 3.13 long signatures are shown with a line for each parameter.
    words = " ".join(shown.getvalue().replace("|", " ").split()).replace("( self", "(self")
    for told in (
        "generate(self, model",
        "Generate text and return it whole",
        "stream(self, model",
        "with_options(self",
    ):
        assert told in words


def test_public_names():
    """Everything public on the asynchronous side can be imported from the blocking side too."""
    assert {"Batch", "NeuralBox", "Stream", *neuralbox_async.__all__} == set(neuralbox_sync.__all__)
    assert all(hasattr(neuralbox_sync, name) for name in neuralbox_sync.__all__)
    assert neuralbox_sync.RateLimitError is neuralbox_async.RateLimitError


def test_size():
    """The facade stays thin: under 350 lines, docstrings and comments included."""
    files = pathlib.Path(neuralbox_sync.__file__).parent.glob("*.py")

    assert 350 > sum(bool(line.strip()) for file in files for line in file.read_text().splitlines())


def test_import_is_light():
    """Importing the facade and making a client load no HTTP client and start no thread."""
    code = """
import sys, threading, neuralbox_sync
neuralbox_sync.NeuralBox("nb_test")
assert "aiohttp" not in sys.modules and threading.active_count() == 1
"""

    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})


def test_plain_functions():
    """A twin is a function of the class, so that what works on functions works on it."""
    assert inspect.isfunction(NeuralBox.generate)
    assert not asyncio.iscoroutinefunction(NeuralBox.generate)
