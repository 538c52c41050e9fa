"""``--schema``: a JSON Schema as the type of the output, checked with the jsonschema library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
import click

from neuralbox_async._json_schema import output_type_of_schema

if TYPE_CHECKING:
    from neuralbox_async._wire.output_types import OutputType


@attrs.frozen(eq=False)
class Schema:
    """A JSON Schema, its *contents*, and the type of the values that are valid under it."""

    contents: dict[str, Any]
    _output_type: OutputType[Any]

    @property
    def output_type(self) -> type[Any]:
        """The *output_type* for the methods of a client, which take an `OutputType` as it is."""
        return cast("type[Any]", self._output_type)

    def parse(self, text: str) -> Any:
        """Return the valid JSON value in *text*. Raises `InvalidOutputError`."""
        return self._output_type.parse(text)


max_repairs_option = click.option(
    "--max-repairs",
    default=1,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="With --schema: how many further requests may repair an invalid answer. Each is billed.",
)


def _parse_schema(_context: click.Context, parameter: click.Parameter, path: str | None) -> Schema | None:
    if path is None:
        return None
    try:
        return read_schema(path)
    except ModuleNotFoundError:
        raise click.UsageError("--schema needs another package: pip install 'neuralbox[cli]'") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise click.BadParameter(f"{path}: {reason}", param=parameter) from None


schema_option = click.option(
    "--schema",
    callback=_parse_schema,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Request JSON that conforms to the JSON Schema in FILE, validate it, and prompt again if it is invalid.",
)


def read_schema(path: str) -> Schema:
    """
    Return the type of the JSON values that are valid under the JSON Schema in the file *path*.

    Raises `OSError`, and `ValueError` when it is not a schema, or refers to anything outside of the file.
    """
    contents = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    return Schema(contents, output_type_of_schema(contents))
