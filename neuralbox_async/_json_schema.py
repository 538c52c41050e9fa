"""A JSON Schema as the type of an output: checked with the jsonschema library, which the extra `cli` installs."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire.json import is_array, is_object
from neuralbox_async._wire.output_types import OutputType

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_SAMPLES: Final = (None, "x", 0, [0], {"x": 0})
_MAX_PROBLEMS: Final = 20  # that are reported to the model
_MAX_WORK: Final = 100_000  # keywords that are checked for one value: the event loop waits for it
_PARTS: Final = 16  # of a value that are compared in the time of one keyword


def output_type_of_schema(contents: object) -> OutputType[Any]:
    """
    Return the type of the JSON values that are valid under the JSON Schema *contents*.

    Raises `ValueError` when it is not a schema, or refers to anything outside of itself; `RecursionError` when it is
    nested too deeply; `ModuleNotFoundError` without the library.
    """
    if not isinstance(contents, dict):
        raise ValueError("it is not a JSON Schema: it is not an object")  # noqa: TRY004 - of data, not of an argument
    members = cast("dict[str, Any]", contents)
    return OutputType(schema=members, structure=_Structure(members))


class _Structure:
    """The function that returns a JSON value that is valid under the JSON Schema *contents*; it can be pickled."""

    def __init__(self, contents: dict[str, Any]) -> None:
        self._contents = contents
        self._validator = _validator(contents)

    def __call__(self, value: Any) -> Any:
        problems = tuple(_problems(self._validator, value))
        if problems:
            raise InvalidOutputError(problems)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return _Structure, (self._contents,)


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
    bounded = _bounded(kind, contents)
    validator: Validator = bounded(contents, registry=registry, format_checker=kind.FORMAT_CHECKER)
    for value in _SAMPLES:
        _work.begin()
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
        _work.begin()
        json.dumps(value, allow_nan=False)
        for number, error in enumerate(validator.iter_errors(value)):
            if number == _MAX_PROBLEMS:
                return
            yield Problem(error.json_path, error.message)
    except _TooMuchWorkError:
        yield Problem("$", "it has too much to check")
    except Exception as error:  # noqa: BLE001 - of the schema, such as an endless reference: the text is paid for
        yield Problem("$", f"it cannot be checked: {type(error).__name__}: {error}")


# ------------------------------------------------------------------------------------------------------------ the work


class _TooMuchWorkError(Exception):
    """The work for a value exceeds the bound."""


class _Work(threading.local):
    """
    What is *left* of the work for one value, and whether arrays and objects in it fit a schema, by the ids of both.

    Otherwise each level of a recursive `anyOf` would check all below it once for each of its schemas. Booleans as
    schemas share their ids, and accept everything or nothing.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.left = _MAX_WORK
        self.misfits: dict[tuple[int, int], tuple[bool, int, bool] | None] = {}

    def do(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left < 0:
            raise _TooMuchWorkError


_work = _Work()
_Keyword = Callable[["Validator", Any, Any, Any], "Iterator[Any] | None"]
_Misfit = Callable[[Any, Any, Any], tuple[bool, int, bool] | None]


def _bounded(kind: Any, contents: dict[str, Any]) -> Any:
    """Return the class *kind* of validators for the schema *contents*, but its work is bounded; it accepts the same."""
    from jsonschema import validators

    text = json.dumps(contents, allow_nan=False)
    # What a dynamic reference names depends on the way to it.
    misfit = _misfit if '"$dynamicRef"' in text or '"$recursiveRef"' in text else _misfit_once
    others: dict[str, _Keyword] = {
        "anyOf": functools.partial(_any_of, misfit),
        "oneOf": functools.partial(_one_of, misfit),
        "uniqueItems": _unique_items,
    }
    functions: dict[str, _Keyword] = kind.VALIDATORS
    counted = {name: functools.partial(_counted, others.get(name) or function) for name, function in functions.items()}
    return cast("Any", validators).extend(kind, counted)


def _counted(keyword: _Keyword, validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[Any] | None:
    _work.do()
    return keyword(validator, value, instance, schema)


def _any_of(misfit: _Misfit, validator: Validator, schemas: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    # The library's own makes all errors of all schemas.
    misfits: list[tuple[bool, int, bool]] = []
    for schema in schemas:
        if (found := misfit(validator, schema, instance)) is None:
            return
        misfits.append(found)
    yield from _errors_of_nearest(misfits, validator, schemas, instance)


def _one_of(misfit: _Misfit, validator: Validator, schemas: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    found = [misfit(validator, schema, instance) for schema in schemas]
    fitting = [schema for schema, each in zip(schemas, found, strict=True) if each is None]
    if not fitting:
        yield from _errors_of_nearest([each for each in found if each is not None], validator, schemas, instance)
    elif len(fitting) > 1:
        yield _error(f"{instance!r} is valid under each of {', '.join(map(repr, fitting))}")


def _errors_of_nearest(
    misfits: list[tuple[bool, int, bool]], validator: Any, schemas: Any, instance: Any
) -> Iterator[Any]:
    """Yield the errors of the schema that *instance* almost fits, or one of all."""
    nearest = max(misfits, default=_OTHER_TYPE)
    if nearest > _OTHER_TYPE:
        yield from validator.descend(instance, schemas[misfits.index(nearest)])
    else:
        yield _error(f"{instance!r} is not valid under any of the given schemas")


def _misfit(validator: Any, schema: Any, instance: Any) -> tuple[bool, int, bool] | None:
    """
    Return None if *instance* fits *schema*; otherwise what is higher for the schema that it almost fits.

    By the first error: first, whether it is of no constant, such as a tag; then, how deep it is; then, whether it is of
    no type.
    """
    error = next(validator.descend(instance, schema), None)
    if error is None:
        return None
    return error.validator not in {"const", "enum"}, len(error.relative_path), error.validator != "type"


_OTHER_TYPE: Final = (True, 0, False)


def _misfit_once(validator: Any, schema: Any, instance: Any) -> tuple[bool, int, bool] | None:
    if not isinstance(instance, list | dict):
        return _misfit(validator, schema, instance)
    key = (id(schema), id(cast("object", instance)))
    if key not in _work.misfits:
        _work.misfits[key] = _misfit(validator, schema, instance)
    return _work.misfits[key]


def _unique_items(validator: Validator, wanted: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    # The library's own compares each item with each other one.
    if wanted and validator.is_type(instance, "array") and len({*map(_hashable, instance)}) < len(instance):
        yield _error(f"{instance!r} has non-unique elements")


def _hashable(value: Any) -> Any:
    """Return a value that is equal to those of the same JSON values, in which 1 is 1.0, but not true."""
    if isinstance(value, bool):
        return bool, value
    if is_array(value):
        _work.do(1 + len(value) // _PARTS)
        return list, tuple(map(_hashable, value))
    if is_object(value):
        _work.do(1 + len(value) // _PARTS)
        return dict, frozenset((name, _hashable(member)) for name, member in value.items())
    return value


def _error(message: str) -> Exception:
    from jsonschema import ValidationError

    return ValidationError(message)
