"""A request as the local server saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.define(eq=False, kw_only=True)
class ReceivedRequest:
    """What came in. *answered* and *disconnected* change while the request is being served.

    *index* counts the requests since the start or the last reset. *headers* is case-insensitive. *json* is the parsed
    body, None when that is not JSON. *answered* is the status sent, None when there was no answer (yet). *disconnected*
    says that the client went away before the answer was complete.
    """

    index: int
    method: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    json: Any = attrs.field(default=None, repr=False)
    answered: int | None = None
    disconnected: bool = False
