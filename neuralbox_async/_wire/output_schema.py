"""JSON Schema (draft 2020-12) of output types: it accepts what `output_structuring` accepts, and is deterministic."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal
from types import GenericAlias
from typing import Any, Final, Literal, NewType, TypeVar, Unpack, get_args, get_origin

from neuralbox_async._wire import json, pydantic_models
from neuralbox_async._wire.output_bounds import NO_BOUNDS, Bounds, bounds_of
from neuralbox_async._wire.output_fields import Field, description_in, docstring_of, fields_of
from neuralbox_async._wire.output_hashing import is_hashable
from neuralbox_async._wire.output_kinds import (
    ARRAYS,
    OBJECTS,
    ByType,
    has_fields,
    is_alias,
    is_enum,
    is_union,
    json_type,
    json_types_of,
    literal_values,
    scalar_schema,
    unannotated,
    unsupported,
    value_of_alias,
)

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
REFERENCE: Final = "#/$defs/"
# Keywords with schemas by names, which may be those of keywords; and those with any JSON.
_BY_NAME: Final = frozenset({"$defs", "dependentSchemas", "patternProperties", "properties"})
_DATA: Final = frozenset({"const", "default", "enum", "examples"})


def schema_of(tp: Any) -> tuple[dict[str, Any], bool]:
    """
    Return the JSON Schema of the type *tp*, and whether a `Decimal` is in it.

    Raises `InvalidParameterError` if it is no supported type.
    """
    builder = _Builder()
    root = builder.schema(tp)
    for name, definition in builder.definitions.items():
        if _is_endless(definition, builder.definitions, frozenset({name})):
            raise unsupported(tp, f"{name} is defined by itself")
    if not _has_end(root, _with_end(builder.definitions, builder.of_models)):
        raise unsupported(tp, "each of its values requires another one")
    reference = root.get("$ref", "")
    if len(root) == 1 and builder.uses.get(reference) == 1:  # not recursive: the definition itself
        root = builder.definitions.pop(reference.removeprefix(REFERENCE))
    definitions = {"$defs": builder.definitions} if builder.definitions else {}
    return {"$schema": DIALECT, **root, **definitions}, builder.has_decimal


class _Builder:
    """
    The schemas of types; those of classes are *definitions*, *uses* counts the references to each.

    *of_models*: the names of the definitions that pydantic made, of which its validators may accept more.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, dict[str, Any]] = {}
        self.of_models: set[str] = set()
        self.uses: dict[str, int] = {}
        self.has_decimal = False
        self._names = ByType[str]()

    def schema(self, tp: Any) -> dict[str, Any]:
        """Return the schema of *tp*, with references to definitions."""
        inner, metadata = unannotated(tp)
        if metadata:
            return self._annotated(inner, bounds_of(metadata), description_in(metadata))
        if (define := self._definition(tp)) is not None:
            return self._reference(tp, define)
        return self._inline(tp)

    def _definition(self, tp: Any) -> Callable[[], dict[str, Any]] | None:
        """Return the function that makes the definition of *tp*, or None for a type that has none."""
        if pydantic_models.is_model(tp):
            return lambda: self._pydantic(tp)
        if is_enum(tp) and list(tp):
            return lambda: _described(_choice([value for value, _ in literal_values(tp)]), tp)
        if has_fields(tp):
            return lambda: self._object(tp)
        return (lambda: self.schema(value_of_alias(tp))) if is_alias(tp) else None

    def _inline(self, tp: Any) -> dict[str, Any]:
        if isinstance(tp, NewType):
            return self.schema(tp.__supertype__)
        if get_origin(tp) is Literal:
            return _choice([value for value, _ in literal_values(tp)])
        if is_union(tp):
            return {"anyOf": [self.schema(member) for member in get_args(tp)]}
        if isinstance(tp, TypeVar) and not tp.__constraints__ and tp.__bound__ is None:
            return {}
        return self._scalar_or_collection(tp)

    def _scalar_or_collection(self, tp: Any) -> dict[str, Any]:
        if (scalar := scalar_schema(tp)) is not None:
            self.has_decimal |= tp is Decimal
            return dict(scalar)
        origin, arguments = get_origin(tp) or tp, get_args(tp)
        if not arguments and not isinstance(tp, Hashable):
            raise unsupported(tp)
        if origin is tuple:
            return self._tuple(tp, arguments)
        if origin in ARRAYS:
            items = self.schema(arguments[0]) if arguments else {}
            if ARRAYS[origin] in {set, frozenset} and not is_hashable(arguments[0] if arguments else Any):
                raise unsupported(tp, "the items of a set must be hashable")
            return {"type": "array", **({"items": items} if items else {})}
        if origin in OBJECTS:
            name, metadata = unannotated(arguments[0]) if arguments else (str, ())
            if name not in (str, Any) or bounds_of(metadata) != NO_BOUNDS:
                raise unsupported(tp, "the names of members are strings without bounds")
            values = self.schema(arguments[1]) if arguments else {}
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        raise unsupported(tp)

    def _tuple(self, tp: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if not arguments and tp is tuple:
            return {"type": "array"}
        if len(arguments) == 2 and arguments[1] is ...:
            return self.schema(GenericAlias(list, arguments[0]))
        if any(getattr(argument, "__unpacked__", False) or get_origin(argument) is Unpack for argument in arguments):
            raise unsupported(tp, "the number of its items must be fixed")
        items = [self.schema(argument) for argument in arguments]
        length = len(items)
        prefix = {"prefixItems": items} if items else {}
        return {"type": "array", **prefix, "minItems": length, "maxItems": length}

    def _annotated(self, tp: Any, bounds: Bounds, description: str | None) -> dict[str, Any]:
        schema = self.schema(tp)
        if bounds != NO_BOUNDS:
            keywords = bounds.keywords(json_types_of(tp))
            if not keywords and bounds != Bounds(min_length=0):
                raise unsupported(tp, "bounds are for numbers, strings and collections")
            schema = {"allOf": [schema], **keywords} if keywords.keys() & schema.keys() else {**schema, **keywords}
        return {**schema, "description": description} if description else schema

    def _object(self, tp: Any) -> dict[str, Any]:
        fields = fields_of(tp)
        properties = {field.member: self._property(field) for field in fields}
        required = [field.member for field in fields if field.required]
        schema = {
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }
        return _described(schema, tp)

    def _property(self, field: Field) -> dict[str, Any]:
        return self._annotated(field.type, field.bounds, field.description)

    def _pydantic(self, tp: Any) -> dict[str, Any]:
        schema: dict[str, Any] = pydantic_models.schema_of(tp)
        inner = schema.pop("$defs", {})
        free: dict[str, str] = {}
        for name in inner:
            free[name] = self._free_name(name)
            self.definitions[free[name]] = {}  # the name is taken
        self.of_models |= {*free.values()}
        names = {f"{REFERENCE}{name}": f"{REFERENCE}{other}" for name, other in free.items()}
        for name, definition in inner.items():
            self.definitions[free[name]] = _renamed(definition, names)
        renamed: dict[str, Any] = _renamed(schema, names)
        return renamed

    def _reference(self, tp: Any, define: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a reference to the definition of *tp*, which is made once."""
        name = self._names.get(tp)
        if name is None:
            name = self._names.set(tp, self._free_name(_name_of(tp)))
            self.definitions[name] = {}  # its place in the order, and its name, are taken
            if pydantic_models.is_model(tp):
                self.of_models.add(name)
            self.definitions[name] = define()
        reference = f"{REFERENCE}{name}"
        self.uses[reference] = self.uses.get(reference, 0) + 1
        return {"$ref": reference}

    def _free_name(self, name: str) -> str:
        """Return *name*, with a number if another class has it."""
        number, free = 1, name
        while free in self.definitions:
            number += 1
            free = f"{name}_{number}"
        return free


def _is_endless(schema: Any, definitions: Mapping[str, Any], seen: frozenset[str]) -> bool:
    """Return whether *schema* leads to one of the *seen* definitions again, for the same value."""
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.removeprefix(REFERENCE)
        if name in seen or _is_endless(definitions.get(name, {}), definitions, seen | {name}):
            return True
    parts = [*schema.get("anyOf", ()), *schema.get("allOf", ())]
    return any(_is_endless(part, definitions, seen) for part in parts if json.is_object(part))


def _with_end(definitions: dict[str, Any], known: set[str]) -> set[str]:
    """Return the names of the *definitions* that have a value of finite depth, as those that are *known* to."""
    found, before = known.copy(), -1
    while before < len(found):
        before = len(found)
        for name in reversed(definitions):  # those that others refer to come after them
            if _has_end(definitions[name], found):
                found.add(name)
    return found


def _has_end(schema: Any, known: set[str]) -> bool:
    """Return whether *schema* has a value of finite depth, by the names of the definitions that are *known* to."""
    if not json.is_object(schema):
        return True
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith(REFERENCE):
        return reference.removeprefix(REFERENCE) in known
    parts, choices = schema.get("allOf"), schema.get("anyOf", schema.get("oneOf"))
    required, properties = schema.get("required"), schema.get("properties")
    needed = list[Any](parts) if json.is_array(parts) else []
    if json.is_array(required) and json.is_object(properties):
        needed += (properties.get(name) for name in required if isinstance(name, str))
    if schema.get("minItems"):
        first = schema.get("prefixItems", [schema.get("items")])
        needed += first if json.is_array(first) else []
    return all(_has_end(part, known) for part in needed) and (
        not json.is_array(choices) or any(_has_end(choice, known) for choice in choices)
    )


def _name_of(tp: Any) -> str:
    names = [getattr(tp, "__name__", None) or type(tp).__name__]
    names += [_name_of(argument) for argument in get_args(tp)]
    return "_".join("".join(char for char in name if char.isalnum() or char == "_") for name in names)


def _choice(values: list[Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"const": values[0]} if len(values) == 1 else {"enum": values}
    names = {json_type(value) for value in values}
    return {"type": names.pop(), **schema} if len(names) == 1 else schema


def _described(schema: dict[str, Any], tp: Any) -> dict[str, Any]:
    cls: Any = get_origin(tp) or tp
    doc = docstring_of(cls)
    return {"description": inspect.cleandoc(doc), **schema} if doc else schema


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """Return *schema* with other references, also in the mapping of a discriminator."""
    if json.is_array(schema):
        return [_renamed(item, names) for item in schema]
    if not json.is_object(schema):
        return schema
    renamed: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str):
            renamed[key] = names.get(value, value)
        elif key == "discriminator" and json.is_object(value) and json.is_object(mapping := value.get("mapping")):
            renamed[key] = {**value, "mapping": {tag: names.get(to, to) for tag, to in mapping.items()}}
        elif key in _BY_NAME and json.is_object(value):
            renamed[key] = {name: _renamed(member, names) for name, member in value.items()}
        else:
            renamed[key] = value if key in _DATA else _renamed(value, names)
    return renamed
