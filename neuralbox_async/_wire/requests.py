"""
The encoder of requests: from `GenerateRequest` to the bytes of a body, and the `Request` that carries them.

Equal requests have equal bytes, on every machine and with every set of extras: the keys of a batch's journal are hashes
of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from neuralbox_async._errors import NO_HEADERS
from neuralbox_async._types import GenerateRequest, ImagePart, Message, TextPart
from neuralbox_async._wire import json


@attrs.define(kw_only=True)
class Request:
    """
    One HTTP request, without the API key and without the host; never changed.

    *headers* are sent besides the client's own. *read_only*: of a POST: it changes nothing and costs nothing.
    *model*, *temperature*, *max_tokens*: of a request for a generation; they are in the body as well.
    """

    method: str
    path: str
    body: bytes | None = attrs.field(default=None, repr=False)
    headers: Mapping[str, str] = attrs.field(default=NO_HEADERS, repr=False)
    stream: bool = False
    read_only: bool = False
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None

    @property
    def costs_nothing(self) -> bool:
        """Whether it is not billed, so that it may be repeated: a GET, or a POST that is *read_only*."""
        return self.read_only or self.method == "GET"


def encode_request(request: GenerateRequest, *, stream: bool) -> bytes:
    """Return the body of POST /generate. Raises `InvalidParameterError` when *extra_body* is not JSON."""
    body = _unstructure_hook()(request)
    if stream:
        body["stream"] = True
    return json.dumps(body, parameter=_parameter_to_blame(request))


def encode_prompt(request: GenerateRequest) -> bytes | None:
    """
    Return the body of POST /generate/stream, or None when *request* does not end with a text of the user.

    That endpoint is documented in the vendor's second form only: ``prompt``, and the rest in ``params``.
    """
    *earlier, last = request.messages
    if last.role != "user" or not isinstance(last.content, str):
        return None
    params = {
        "messages": [_unstructure_message(message) for message in earlier] or None,
        "system_prompt": request.system,
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    params = {name: value for name, value in params.items() if value is not None}
    body = {"model": request.model, "prompt": last.content, **({"params": params} if params else {})}
    return json.dumps({**body, **request.extra_body}, parameter=_parameter_to_blame(request))


def _parameter_to_blame(request: GenerateRequest) -> str:
    return "extra_body" if request.extra_body else "messages"


@functools.cache
def _unstructure_hook() -> Callable[[GenerateRequest], dict[str, Any]]:
    from neuralbox_async._wire.structuring import converter  # it loads cattrs, with the first call

    return converter().get_unstructure_hook(GenerateRequest)


def unstructure_request(request: GenerateRequest) -> dict[str, Any]:
    """Return *request* as the JSON object of POST /generate: the converter's hook."""
    body: dict[str, Any] = {"model": request.model, "messages": [_unstructure_message(m) for m in request.messages]}
    if request.system is not None:
        body["system"] = request.system
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.extra_body:
        body.update(request.extra_body)
    return body


def _unstructure_message(message: Message) -> dict[str, Any]:
    content = message.content
    wire = content if isinstance(content, str) else [_unstructure_part(part) for part in content]
    body = {"role": message.role, "content": wire}
    return {**body, **message.extra} if message.extra else body


def _unstructure_part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text, **part.extra}
    extra = dict(part.extra)
    return {"type": "image_url", "image_url": {"url": part.url, **extra.pop("image_url", {})}, **extra}
