"""
The endpoints of the API: one function for each, which returns its `Request`.

Source: the vendor's pages "Text Generation", "Streaming Guide", "Generation status", and those of account and models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from neuralbox_async._types import GenerateRequest
from neuralbox_async._wire import fast_path, json
from neuralbox_async._wire.requests import Request, encode_prompt, encode_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async._types import GenerationId, Messages

STATUS_PATHS: Final = ("/generate/status/{id}", "/generate/{id}")
"""The two documented paths of a generation's status: the page "History" has one, "Generation status" the other."""

BALANCE_PATHS: Final = ("/balance", "/user/balance")
"""The two documented paths of the balance: the page "Balance" has one, "Profile" the other, which has more members."""


def generate(request: GenerateRequest, headers: Mapping[str, str]) -> Request:
    """Return POST /generate for *request*. Raises `InvalidParameterError` when it is not JSON."""
    body = fast_path.encode_plain_request(request) or encode_request(request, stream=False)
    return _post("/generate", body, headers, request)


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
            return Request(
                method="POST",
                path="/generate",
                body=body,
                headers=headers,
                model=model,
                temperature=temperature,
                max_tokens=max_tokens,
            )
    request = GenerateRequest(
        model, messages, system=system, temperature=temperature, max_tokens=max_tokens, extra_body=extra_body or {}
    )
    return generate(request, headers)


def stream(request: GenerateRequest, headers: Mapping[str, str]) -> Request:
    """Return POST /generate with ``"stream": true``. Raises `InvalidParameterError` when *request* is not JSON."""
    return _post("/generate", encode_request(request, stream=True), headers, request, stream=True)


def stream_fallback(request: GenerateRequest, headers: Mapping[str, str]) -> Request | None:
    """Return POST /generate/stream, the other documented endpoint, or None when it does not take such a *request*."""
    body = encode_prompt(request)
    if body is None:
        return None
    return _post("/generate/stream", body, headers, request, stream=True)


def _post(
    path: str, body: bytes, headers: Mapping[str, str], request: GenerateRequest, *, stream: bool = False
) -> Request:
    return Request(
        method="POST",
        path=path,
        body=body,
        headers=headers,
        stream=stream,
        model=request.model,
        temperature=request.temperature,
        max_tokens=request.max_tokens,
    )


def retrieve(generation_id: GenerationId, path: str, headers: Mapping[str, str]) -> Request:
    """Return the GET of a generation's status, under one of `STATUS_PATHS`."""
    return Request(method="GET", path=path.format(id=quote(str(generation_id), safe="")), headers=headers)


def balance(path: str, headers: Mapping[str, str]) -> Request:
    """Return the GET of the account's token balance, under one of `BALANCE_PATHS`."""
    return Request(method="GET", path=path, headers=headers)


def account(headers: Mapping[str, str]) -> Request:
    """Return the GET of the account. Source: the vendor's page "Profile" (GET /user/me)."""
    return Request(method="GET", path="/user/me", headers=headers)


def stats(headers: Mapping[str, str]) -> Request:
    """Return the GET of the account's statistics. Source: the vendor's page "Statistics" (GET /user/stats)."""
    return Request(method="GET", path="/user/stats", headers=headers)


def history(filters: Mapping[str, str], page: int, limit: int, headers: Mapping[str, str]) -> Request:
    """Return the GET of a page of the history. Source: the vendor's two pages "History" (GET /user/history)."""
    query = urlencode({"page": page, "limit": limit, **filters})
    return Request(method="GET", path=f"/user/history?{query}", headers=headers)


def history_filters(
    category: str | None, model: str | None, status: str | None, *, favorites_only: bool
) -> dict[str, str]:
    """Return the query members that select generations, under the names of both pages: a server ignores the others."""
    selected = {"type": category, "category": category, "model": model, "model_slug": model, "status": status}
    filters = {name: value for name, value in selected.items() if value is not None}
    return {**filters, "favorites_only": "true"} if favorites_only else filters


def models(page: int, headers: Mapping[str, str]) -> Request:
    """Return the GET of a page of the catalogue; the vendor links to its page, which was never seen (GET /models)."""
    return Request(method="GET", path="/models" if page == 1 else f"/models?page={page}", headers=headers)


def model(slug: str, headers: Mapping[str, str]) -> Request:
    """Return the GET of one model. Source: the vendor's page "Get model" (GET /models/{slug})."""
    return Request(method="GET", path=f"/models/{quote(slug, safe='')}", headers=headers)


def price(model: str, headers: Mapping[str, str], params: Mapping[str, Any] | None = None, count: int = 1) -> Request:
    """
    Return the POST that calculates the price of *count* generations of *model* with the options *params*; it is free.

    Raises `InvalidParameterError` when *params* is not JSON. Source: the vendor's page "Calculate price" (POST
    /models/{slug}/calculate-price).
    """
    path = f"/models/{quote(model, safe='')}/calculate-price"
    body = json.dumps({"params": dict(params or {}), "count": count}, parameter="params")
    return Request(method="POST", path=path, body=body, headers=headers, read_only=True)
