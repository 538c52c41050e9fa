"""The objects with the public names."""

from __future__ import annotations

import inspect

import attrs

import neuralbox_async
import neuralbox_sync
from neuralbox_async import APIStatusError

EXAMPLES = {"APIStatusError": APIStatusError("400", status_code=400)}


def resolve(name):
    """Return the object with a *name* of ours: a class, an attribute, or a parameter."""
    path, _, parameter = name.rstrip(")").partition("(")
    module = neuralbox_async
    if path.startswith("neuralbox_sync."):
        module, path = neuralbox_sync, path.removeprefix("neuralbox_sync.")
    found = module
    for step in path.split("."):
        if attrs.has(found) and step in attrs.fields_dict(found):
            found = attrs.fields_dict(found)[step]
        else:
            found = getattr(EXAMPLES.get(getattr(found, "__name__", ""), found), step)
    return inspect.signature(found).parameters[parameter] if parameter else found
