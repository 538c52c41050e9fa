"""pydantic models as output types: their own schema, and their own validation, which is strict."""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire.json_paths import json_path


def is_model(tp: object) -> bool:
    """Return whether *tp* is a pydantic model or dataclass; pydantic is not imported for that."""
    if not isinstance(tp, type) or sys.modules.get("pydantic") is None:
        return False
    return hasattr(tp, "__pydantic_validator__") and hasattr(tp, "__pydantic_core_schema__")


@functools.lru_cache(maxsize=256)
def _adapter(tp: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(tp)


def schema_of(tp: Any) -> dict[str, Any]:
    """Return the JSON Schema that pydantic makes of *tp*. Raises `InvalidParameterError` if it cannot."""
    try:
        schema: dict[str, Any] = _adapter(tp).json_schema()
    except Exception as error:  # of pydantic, or of the user's own hooks
        raise InvalidParameterError("output_type", tp, f"a model with a JSON Schema ({error})") from error
    return schema


def structure(value: Any, tp: Any) -> Any:
    """
    Return the JSON *value* as a *tp*. Raises `InvalidOutputError`.

    In pydantic's strict mode, in which "5" is no integer, unless the configuration of the model has ``strict=False``.
    """
    from pydantic import ValidationError

    config: dict[str, Any] = getattr(tp, "model_config", None) or getattr(tp, "__pydantic_config__", None) or {}
    lax = config.get("strict") is False
    try:
        # As JSON: in strict mode Python's own values must have the exact types, so that no string is a date.
        return _adapter(tp).validate_json(json.dumps(value), strict=None if lax else True)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidOutputError(tuple(_problem(problem) for problem in problems)) from None


def _problem(error: Any) -> Problem:
    return Problem(json_path(error["loc"]), str(error["msg"]))
