"""What the logger ``neuralbox`` gets of calls: a sentence, and its facts as attributes of the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralbox_async._clock import time_since
from neuralbox_async._logging import logger

if TYPE_CHECKING:
    from neuralbox_async._call.executor import Call


def log(level: int, call: Call, message: str, *facts: object, **extra: object) -> None:
    """
    Log *message* with *facts* about *call*.

    The record has the attributes ``neuralbox_method``, ``neuralbox_path``, ``neuralbox_attempt``, ``neuralbox_elapsed``
    (seconds since the start of the call), ``neuralbox_request_id`` and, under such names, *extra*.
    """
    if not logger.isEnabledFor(level):
        return
    path = call.mask.apply_to_text(call.request.path)  # the id of a generation is the server's
    request_id = None if call.response is None else call.mask.apply(call.response.headers.get("x-request-id"))
    attributes = {
        "method": call.request.method,
        "path": path,
        "attempt": call.attempts,
        "elapsed": time_since(call.started),
        "request_id": request_id,
        **extra,
    }
    # The prefix: an attribute that the application's own record factory sets would be an error.
    named = {f"neuralbox_{name}": value for name, value in attributes.items()}
    identified = message if request_id is None else f"{message} (request id %s)"
    facts = facts if request_id is None else (*facts, request_id)
    logger.log(level, f"%s %s: {identified}", call.request.method, path, *facts, extra=named)
