"""An editor that reads the code without running it (jedi) completes names and shows signatures, for both clients."""

import inspect
import sys
from pathlib import Path

import attrs
import jedi
import pytest

import neuralbox_async
import neuralbox_sync
from neuralbox_async import AsyncNeuralBox, BatchReport, BatchResult, Generation
from neuralbox_sync import Batch, NeuralBox, Stream

PROJECT = jedi.Project(Path(neuralbox_async.__file__).parent.parent, load_unsafe_extensions=False)
METHODS = ["generate", "generate_many", "retrieve", "stream", "wait", "with_options"]
pytestmark = pytest.mark.process  # jedi starts one

BLOCKING = """\
from neuralbox_sync import NeuralBox

with NeuralBox() as client:
    """
ASYNC = """\
from neuralbox_async import AsyncNeuralBox

async def main():
    async with AsyncNeuralBox() as client:
        """


def shown_parameters(code):
    """Return the parameters that jedi shows at the end of *code*, inside of a call: names with or without a default."""
    *_, signature = jedi.Script(code, project=PROJECT).get_signatures()
    return [(parameter.name, parameter.kind, "=" in parameter.to_string()) for parameter in signature.params]


def parameters(function):
    """Return the same of *function*, without `self`."""
    _self, *others = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default is not parameter.empty) for parameter in others]


def completions(code):
    """Return the public names that jedi suggests at the end of *code*."""
    return [name.name for name in jedi.Script(code, project=PROJECT).complete() if not name.name.startswith("_")]


def public(cls):
    """Return the public names of *cls*, attributes of values included."""
    fields = attrs.fields_dict(cls) if attrs.has(cls) else ()
    return sorted({name for name in (*dir(cls), *fields) if not name.startswith("_")})


def test_constructors():
    """The parameters of the constructor are shown."""
    assert parameters(AsyncNeuralBox.__init__) == shown_parameters("import neuralbox_sync\nneuralbox_sync.NeuralBox(")
    assert parameters(AsyncNeuralBox.__init__) == shown_parameters("import neuralbox_async as n\nn.AsyncNeuralBox(")


@pytest.mark.parametrize("start, name", [*((BLOCKING, name) for name in METHODS), (ASYNC, "generate")])
def test_parameters(start, name):
    """The parameters of a method are shown, inside a `with` block."""
    assert parameters(getattr(AsyncNeuralBox, name)) == shown_parameters(f"{start}client.{name}(")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="jedi 0.20 fails there while it reads the standard library")
@pytest.mark.parametrize(
    "expression, cls",
    [
        ("client.", NeuralBox),
        ("client.with_options(timeout=1).", NeuralBox),
        ("client.generate('gpt-5', 'Hi').", Generation),
        ("client.wait(1).", Generation),
        ("with client.stream('gpt-5', 'Hi') as stream: stream.", Stream),
        ("client.stream('gpt-5', 'Hi').get_final_generation().", Generation),
        ("with client.generate_many(['Hi']) as batch: batch.", Batch),
        ("for result in client.generate_many(['Hi']): result.", BatchResult),
        ("client.generate_many(['Hi']).report.", BatchReport),
    ],
)
def test_results(expression, cls):
    """The public names of what a blocking method returns are suggested."""
    assert public(cls) == sorted(completions(BLOCKING + expression))


def test_public_names():
    """The names of both packages are suggested."""
    for package in (neuralbox_async, neuralbox_sync):
        name = package.__name__
        assert set(package.__all__) - {"__version__"} <= set(completions(f"import {name}\n{name}."))
