"""Results as the columns of a table: of a pandas DataFrame, or of a table of Arrow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from neuralbox_async._cluster.row_results import COLUMNS

if TYPE_CHECKING:
    from neuralbox_async._cluster.row_results import RowResult


def column_names(*, typed: bool) -> list[str]:
    """Return the names of the columns of results; *typed*: with ``value``."""
    return [name for name in COLUMNS if typed or name != "value"]


def frame_with_columns(frame: Any, results: list[RowResult], *, typed: bool) -> Any:
    """Return the pandas *frame* with the columns of *results*, one for each of its rows."""
    pandas = importlib.import_module("pandas")
    return frame.assign(
        **{
            name: pandas.Series([getattr(result, name) for result in results], index=frame.index, dtype=_dtype_of(name))
            for name in column_names(typed=typed)
        }
    )


def _dtype_of(column: str) -> str:
    return "Int64" if column == "tokens_used" else "object"  # a number or nothing; a string or nothing


def arrow_with_columns(table: Any, results: list[RowResult], *, typed: bool) -> Any:
    """
    Return the Arrow *table* with the columns of *results*, one for each of its rows.

    If *typed*, a pandas DataFrame with the types of Arrow: Arrow has none for values of any class.
    """
    if typed:
        pandas = importlib.import_module("pandas")
        return frame_with_columns(table.to_pandas(types_mapper=pandas.ArrowDtype), results, typed=typed)
    arrow = importlib.import_module("pyarrow")
    names = column_names(typed=typed)
    table = table.drop_columns([name for name in names if name in table.column_names])
    for name in names:
        kind = arrow.int64() if name == "tokens_used" else arrow.string()
        table = table.append_column(name, arrow.array([getattr(result, name) for result in results], type=kind))
    return table
