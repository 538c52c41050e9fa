"""The lines that a journal writes: bytes that one JSON object fits, without I/O."""

from __future__ import annotations

import json
import math
import re
import time
from typing import TYPE_CHECKING, Any, Final

from neuralbox_async._batch.errors import OutcomeUnknownError
from neuralbox_async._call import polling
from neuralbox_async._errors import APIConnectionError, InvalidParameterError, ResponseError
from neuralbox_async._wire.json import is_array, is_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from neuralbox_async._errors import NeuralBoxError
    from neuralbox_async._types import Generation, GenerationId

_MAX_BODY: Final = 1024 * 1024  # bytes of a response without a text
_MAX_ID: Final = 2**63 - 1
# What is nested deeper than this in a response is left out: not every program could read the line.
_MAX_DEPTH: Final = 100
_UP_TO_TIME: Final = re.compile(rb'(\{"event":"[a-z]+","key":"(?:[^"\\]|\\.)*","at":)[0-9.]+')
_dumps: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # made once: it is costly
_quoted: Final = json.encoder.encode_basestring


def start(key: str, idempotency_key: str, model: str, reserved: int | None, request_hash: str | None) -> bytes:
    """Return the line for a *key* that is about to be sent, for *reserved* tokens; *request_hash*: of the body."""
    request = f'"idempotency_key":{_quoted(idempotency_key)},"model":{_quoted(model)}'
    body = "" if request_hash is None else f'"request_hash":"{request_hash}",'
    facts = f'"reserved":{"null" if reserved is None else reserved},{body}"at":{_now()}'
    return f'{{"event":"start","key":{_quoted(key)},{request},{facts}}}\n'.encode()


def pending(key: str, generation_id: GenerationId) -> bytes:
    """Return the line for a *key* that the API accepted and has not finished."""
    return _encoded({"event": "pending", "key": key, "at": float(_now()), "id": generation_id}) + b"\n"


def done(
    key: str,
    generation: Generation,
    body: bytes,
    *,
    attempts: int,
    elapsed: float,
    tokens_used: int | None,
    is_valid: bool = True,
    tokens_of_invalid: Sequence[int | None] = (),
) -> bytes:
    """
    Return the line for the *generation* of *key*: with the *body* of its response, as it arrived, if it has one.

    *is_valid*: whether it is of the output type. *tokens_of_invalid*: the tokens of each one before it, which were not.
    """
    tokens = "null" if tokens_used is None else tokens_used
    facts = f'"at":{_now()},"attempts":{attempts},"elapsed":{elapsed:.3f},"tokens_used":{tokens}'
    if tokens_of_invalid:
        total = total_of((*tokens_of_invalid, tokens_used))
        facts += f',"tokens_used_total":{"null" if total is None else total}'
    beginning = f'{{"event":"{"done" if is_valid else "invalid"}","key":{_quoted(key)},{facts},"generation":'.encode()
    return b"%b%b}\n" % (beginning, _generation(generation, body))


def total_of(tokens: Iterable[int | None]) -> int | None:
    """Return the sum of *tokens*; None if one of them is unknown."""
    total = 0
    for number in tokens:
        if number is None:
            return None
        total += number
    return total


def failed(
    key: str, error: NeuralBoxError, generation_id: GenerationId | None, *, attempts: int, elapsed: float
) -> bytes:
    """Return the line for a *key* without a generation, with the text that had arrived; *generation_id* if known."""
    facts = {"event": "failed", "key": key, "at": float(_now()), "attempts": attempts, "elapsed": round(elapsed, 3)}
    failure = {"error_type": type(error).__name__, "message": error.message, "billed": error.billed}
    accepted = {} if (known := usable_id(generation_id)) is None else {"id": known}
    return _encoded({**facts, **failure, **accepted, **_response_in(error)}) + b"\n"


def stamped(line: bytes) -> bytes:
    """Return *line*, of an outcome, with the time of now: the clock of the machine that made it may be wrong."""
    found = _UP_TO_TIME.match(line)
    return line if found is None else b"%b%b%b" % (found[1], _now().encode(), line[found.end() :])


def usable_id(value: Any) -> GenerationId | None:
    """Return *value* if a generation can be retrieved by it, otherwise None."""
    if isinstance(value, int) and not -_MAX_ID <= value <= _MAX_ID:
        return None
    try:
        return polling.id_of(value)
    except InvalidParameterError:
        return None


def usable_tokens(value: int | None) -> int | None:
    """Return *value* if it can be a number of tokens: a negative one, or one of more than 64 bits, is a mistake."""
    return value if value is not None and 0 <= value < 2**63 else None


def _response_in(error: NeuralBoxError) -> dict[str, str]:
    """Return what *error* has of a response that is paid for, or may be: its text and its body, which has the id."""
    received = {"text": error.text} if error.text else {}
    if error.billed == "no" or not isinstance(error, ResponseError | APIConnectionError | OutcomeUnknownError):
        return received
    if error.body:
        received["body"] = error.body[:_MAX_BODY].decode(errors="replace")
    return received


def _generation(generation: Generation, body: bytes) -> bytes:
    """Return the JSON object of *generation* as one line: the bytes of *body* if they are one."""
    is_line = body[:1] == b"{" and body.find(b"\n") < 0 and body[-1:] == b"}"
    is_deep = body.count(b"{") + body.count(b"[") > _MAX_DEPTH and (
        bool(generation.problems)  # perhaps of a member that `raw` has no more, because it is nested too deeply
        or _is_deeper(generation.raw, _MAX_DEPTH)
    )
    if is_line and not is_deep:
        return body
    try:
        if generation.raw:
            return _encoded(_pruned(generation.raw, _MAX_DEPTH))
    except (TypeError, ValueError, RecursionError):  # such as a number of thousands of digits
        pass
    essential = {"id": usable_id(generation.id), "status": generation.status, "content": generation.content}
    return _encoded({**essential, "model": generation.model, "url": generation.url})


def _is_deeper(value: Any, levels: int) -> bool:
    if is_object(value):
        return levels == 0 or any(_is_deeper(item, levels - 1) for item in value.values())
    return is_array(value) and (levels == 0 or any(_is_deeper(item, levels - 1) for item in value))


def _pruned(value: Any, levels: int) -> Any:
    """Return *value* with None instead of arrays and objects below so many *levels*, and of numbers that JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if is_object(value):
        return {name: _pruned(item, levels - 1) for name, item in value.items()} if levels else None
    if is_array(value):
        return [_pruned(item, levels - 1) for item in value] if levels else None
    return value


def _encoded(members: Mapping[str, object]) -> bytes:
    try:
        return _dumps(members).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON's escapes can carry
        return json.dumps(members, separators=(",", ":")).encode()


def _now() -> str:
    """Return the Unix time as a JSON number, to the millisecond. Not from a float, whose conversion is costly."""
    digits = str(time.time_ns()).zfill(10)  # some programs set the clock to 0
    return f"{digits[:-9]}.{digits[-9:-6]}"
