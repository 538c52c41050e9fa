"""
The endpoints of the API: one function for each, which returns its `Request`.

Source: the vendor's pages "Text Generation", "Streaming Guide", "Generation status", "Balance" and "Calculate price".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from neuralbox_async._types import GenerateRequest
from neuralbox_async._wire import fast_path, json
from neuralbox_async._wire.requests import Request, encode_prompt, encode_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async._types import GenerationId, Messages

STATUS_PATHS: Final = ("/generate/status/{id}", "/generate/{id}")
"""The two documented paths of a generation's status: the page "History" has one, "Generation status" the other."""


def generate(request: GenerateRequest, headers: Mapping[str, str]) -> Request:
    """Return POST /generate for *request*. Raises `InvalidParameterError` when it is not JSON."""
    body = fast_path.encode_plain_request(request) or encode_request(request, stream=False)
    return Request(method="POST", path="/generate", body=body, headers=headers)


def generate_from(
    model: str,
    messages: Messages,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    *,
    extra_body: Mapping[str, Any] | None,
    headers: Mapping[str, str],
) -> Request:
    """Return POST /generate for a `GenerateRequest` of these. Raises `InvalidParameterError`."""
    if not extra_body:
        body = fast_path.encode_plain(model, messages, system, temperature, max_tokens)
        if body is not None:
            return Request(method="POST", path="/generate", body=body, headers=headers)
    request = GenerateRequest(
        model, messages, system=system, temperature=temperature, max_tokens=max_tokens, extra_body=extra_body or {}
    )
    return generate(request, headers)


def stream(request: GenerateRequest, headers: Mapping[str, str]) -> Request:
    """Return POST /generate with ``"stream": true``. Raises `InvalidParameterError` when *request* is not JSON."""
    body = encode_request(request, stream=True)
    return Request(method="POST", path="/generate", body=body, headers=headers, stream=True)


def stream_fallback(request: GenerateRequest, headers: Mapping[str, str]) -> Request | None:
    """Return POST /generate/stream, the other documented endpoint, or None when it does not take such a *request*."""
    body = encode_prompt(request)
    if body is None:
        return None
    return Request(method="POST", path="/generate/stream", body=body, headers=headers, stream=True)


def retrieve(generation_id: GenerationId, path: str, headers: Mapping[str, str]) -> Request:
    """Return the GET of a generation's status, under one of `STATUS_PATHS`."""
    return Request(method="GET", path=path.format(id=quote(str(generation_id), safe="")), headers=headers)


def balance(headers: Mapping[str, str]) -> Request:
    """Return the GET of the account's token balance. Source: the vendor's page "Balance" (GET /balance)."""
    return Request(method="GET", path="/balance", headers=headers)


def price(model: str, headers: Mapping[str, str]) -> Request:
    """
    Return the POST that calculates the price of a generation of *model*; it is free.

    Source: the vendor's page "Calculate price" (POST /models/{slug}/calculate-price).
    """
    path = f"/models/{quote(model, safe='')}/calculate-price"
    return Request(method="POST", path=path, body=json.dumps({"params": {}, "count": 1}), headers=headers, free=True)
