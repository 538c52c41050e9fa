"""Frameworks that look at a function see that the blocking methods are plain functions."""

import asyncio
import functools
import inspect
import pickle
import typing
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from neuralbox_async import AsyncNeuralBox
from neuralbox_sync import Batch, NeuralBox, Stream

METHODS = [
    (cls, name)
    for cls in (NeuralBox, Stream, Batch)
    for name, member in inspect.getmembers(cls, callable)
    if inspect.isfunction(member) and (not name.startswith("_") or name.endswith("__"))
]


def without_partials(function):
    """Return the function in a partial."""
    return without_partials(function.func) if isinstance(function, functools.partial) else function


@pytest.mark.parametrize("cls, name", METHODS, ids=[f"{cls.__name__}.{name}" for cls, name in METHODS])
def test_not_a_coroutine_function(cls, name):
    """No method is a coroutine function, however a framework unwraps it: its result is not to be awaited."""
    method = getattr(cls, name)
    bound = method.__get__(object.__new__(cls))
    for function in (method, bound, functools.partial(bound), functools.partial(functools.partial(bound), timeout=1)):
        # What FastAPI and Starlette do.
        unwrapped = inspect.unwrap(without_partials(function))
        for candidate in (function, unwrapped, unwrapped.__call__):
            assert not inspect.iscoroutinefunction(candidate)
            assert not inspect.isasyncgenfunction(candidate)


def test_signature_of_a_bound_method():
    """A bound method has a signature without `self`, with the annotations as they are written."""
    client = NeuralBox("nb_test")
    signature = inspect.signature(client.retrieve)

    assert ["generation", "timeout", "max_retries", "extra_headers"] == list(signature.parameters)
    assert ("Generation", None) == (signature.return_annotation, signature.parameters["extra_headers"].default)
    assert "method NeuralBox.retrieve of NeuralBox(" in repr(client.retrieve)


@pytest.mark.parametrize("cls", [AsyncNeuralBox, NeuralBox])
@pytest.mark.parametrize("name", ["parse", "stream", "generate_many"])
def test_overloads(cls, name):
    """The overloads that type checkers read have the parameters of the method itself, in its order."""

    def parameters(function):
        signature = inspect.signature(function)
        return [(p.name, p.kind, p.name == "output_type" or p.annotation) for p in signature.parameters.values()]

    method = getattr(cls, name)
    overloads = typing.get_overloads(method)
    assert (2 if name == "parse" else 3) == len(overloads)
    for overload in overloads:
        assert parameters(method) == parameters(overload)
        assert inspect.iscoroutinefunction(method) is inspect.iscoroutinefunction(overload)
        for given, own in zip(*(inspect.signature(f).parameters.values() for f in (overload, method)), strict=True):
            is_required = own.default is own.empty or (own.name == "output_type" and "TypeForm" in given.annotation)
            assert (given.default is given.empty) is (is_required or given.annotation == "type[T]")


def test_autospec(client):
    """A mock made from the class or from a client has plain methods with the signatures of the real ones."""
    for spec in (mock.create_autospec(NeuralBox, instance=True), mock.create_autospec(client)):
        spec.generate.return_value = "reply"

        assert "reply" == spec.generate("gpt-5", "Hi", temperature=0.5)
        with pytest.raises(TypeError):
            spec.generate("gpt-5", "Hi", temperatur=0.5)


async def test_threads(client):
    """A bound method runs in a thread: `asyncio.to_thread`, a partial in an executor."""
    assert "You said: Hi" == (await asyncio.to_thread(client.generate, "gpt-5", "Hi")).content
    with ThreadPoolExecutor(1) as pool:
        call = functools.partial(client.generate, "gpt-5")
        assert "You said: Ho" == pool.submit(call, "Ho").result().content


def test_pickling_of_methods():
    """The methods of the class can be pickled; those of a client cannot, and the error says why."""
    for method in (NeuralBox.generate, NeuralBox.stream, NeuralBox.close, Stream.get_final_generation):
        assert method is pickle.loads(pickle.dumps(method))
    with pytest.raises(TypeError, match="holds a key"):
        pickle.dumps(NeuralBox("nb_test").generate)


class Tenant(NeuralBox):
    """A client with attributes of its own."""

    plan = "free"

    def __init__(self, name, **options):
        super().__init__("nb_test", **options)
        self.name, self.tags = name, []


class AsyncTenant(AsyncNeuralBox):
    """The same, async."""

    plan = "free"

    def __init__(self, name, **options):
        super().__init__("nb_test", **options)
        self.name, self.tags = name, []


@pytest.mark.parametrize("cls", [Tenant, AsyncTenant])
def test_attributes_of_a_subclass(cls):
    """A derived client has the class and the attributes of the client that it was derived from, the same objects."""
    client = cls("acme")
    client.plan, client.later = "paid", 1
    derived = client.with_options(timeout=3).with_options(max_retries=0)

    assert type(derived) is cls
    assert ("acme", "paid", 1) == (derived.name, derived.plan, derived.later)
    assert derived.tags is client.tags
    derived.name = "other"
    assert "acme" == client.name


def test_a_derived_client_of_a_subclass(neuralbox_server):
    """A derived client of a subclass has its own options, and shares the connections."""
    options = {name: value for name, value in neuralbox_server.client_options.items() if name != "api_key"}
    with Tenant("acme", **options) as client:
        derived = client.with_options(api_key=neuralbox_server.api_key, default_headers={"X-Tenant": client.name})
        assert "You said: Hi" == derived.generate("gpt-5", "Hi").content
    assert derived.closed
    assert "acme" == neuralbox_server.requests[-1].headers["X-Tenant"]
