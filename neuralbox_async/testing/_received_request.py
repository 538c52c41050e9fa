"""The record of one request that the local server received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.define(eq=False, kw_only=True)
class ReceivedRequest:
    """A request and its outcome. *response_status* and *disconnected* change while the server handles the request.

    *index* counts the requests since the start or the last reset. *query* has the parameters after the ``?`` of the
    URL. *headers* is case-insensitive. *json* is the parsed body, None if the body is not JSON. *response_status* is
    the HTTP status of the response, None if none was sent (yet). *disconnected* is true if the client disconnected
    before the response was complete.
    """

    index: int
    method: str
    path: str
    query: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    json: Any = attrs.field(default=None, repr=False)
    response_status: int | None = None
    disconnected: bool = False
