"""A JSON Schema as the type of an output: checked with the jsonschema library, which the extra `cli` installs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire.output_types import OutputType

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_SAMPLES: Final = (None, "x", 0, [0], {"x": 0})
_MAX_PROBLEMS: Final = 20  # that are reported to the model


def output_type_of_schema(contents: object) -> OutputType[Any]:
    """
    Return the type of the JSON values that are valid under the JSON Schema *contents*.

    Raises `ValueError` when it is not a schema, or refers to anything outside of itself; `RecursionError` when it is
    nested too deeply; `ModuleNotFoundError` without the library.
    """
    if not isinstance(contents, dict):
        raise ValueError("it is not a JSON Schema: it is not an object")  # noqa: TRY004 - of data, not of an argument
    members = cast("dict[str, Any]", contents)
    validator = _validator(members)

    def structure(value: Any) -> Any:
        problems = tuple(_problems(validator, value))
        if problems:
            raise InvalidOutputError(problems)
        return value

    return OutputType(schema=members, structure=structure)


def _validator(contents: dict[str, Any]) -> Validator:
    """Return a validator for the schema *contents*. Raises `ValueError` when it is not a schema."""
    # Not above: the library takes 0.1 s to load, and most runs have no schema.
    from jsonschema import Draft202012Validator, SchemaError, validators
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012, specification_with

    if not isinstance(contents.get("$schema", ""), str):
        raise ValueError("it is not a JSON Schema: $.$schema: it is not a string")  # noqa: TRY004 - as above
    kind = validators.validator_for(contents, default=Draft202012Validator)
    try:
        kind.check_schema(contents)
    except SchemaError as error:
        raise ValueError(f"it is not a JSON Schema: {error.json_path}: {error.message}") from None
    # A registry of its own: the default one would load what a reference names from the network.
    registry = cast("Any", Registry)()  # not every type checker takes it for generic
    draft = specification_with(kind.META_SCHEMA.get("$id") or kind.META_SCHEMA["id"], default=DRAFT202012)
    resolver = registry.resolver_with_root(draft.create_resource(contents))
    _check_references(draft.create_resource(contents), resolver, draft, set())
    validator = kind(contents, registry=registry, format_checker=kind.FORMAT_CHECKER)
    for value in _SAMPLES:
        try:
            next(validator.iter_errors(value), None)
        except Exception as error:  # noqa: BLE001 - such as of a reference that leads to itself
            raise ValueError(f"no value can be checked with it: {error}") from None
    return validator


def _check_references(resource: Any, resolver: Any, draft: Any, seen: set[int]) -> None:
    """Look up each reference in *resource*, and in what it names. Raises `ValueError` if there is nothing."""
    contents = resource.contents
    if id(contents) in seen:
        return
    seen.add(id(contents))
    members = cast("dict[str, Any]", contents) if isinstance(contents, dict) else dict[str, Any]()
    for keyword in ("$ref", "$dynamicRef"):
        if isinstance(reference := members.get(keyword), str):
            try:
                found = resolver.lookup(reference)
            except Exception:  # noqa: BLE001 - not only the library's own: a pointer may lead through a number
                raise ValueError(f"it does not resolve the reference {reference!r}") from None
            named = resource.from_contents(found.contents, default_specification=draft)
            _check_references(named, found.resolver, draft, seen)
    for part in resource.subresources():
        _check_references(part, resolver.in_subresource(part), draft, seen)


def _problems(validator: Validator, value: Any) -> Iterator[Problem]:
    try:
        json.dumps(value, allow_nan=False)
        for number, error in enumerate(validator.iter_errors(value)):
            if number == _MAX_PROBLEMS:
                return
            yield Problem(error.json_path, error.message)
    except Exception as error:  # noqa: BLE001 - of the schema, such as an endless reference: the text is paid for
        yield Problem("$", f"it cannot be checked: {type(error).__name__}: {error}")
