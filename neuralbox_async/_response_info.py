"""`ResponseInfo`: the facts of the HTTP response that a generation was read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs

from neuralbox_async._errors import NO_HEADERS
from neuralbox_async._secret import Mask

NO_SECRETS = Mask()


@attrs.frozen(kw_only=True, slots=False)
class ResponseInfo:
    """
    The HTTP response that a generation was read from.

    * *status_code*: of HTTP, 200 as a rule.
    * *attempts*: how many attempts the request took, at least 1.
    * *elapsed*: seconds from the start of the request until the response was read; for a stream, until its head
      arrived.
    * *headers*: with names in lower case, and ``***`` in place of an echoed key.
    """

    status_code: int
    attempts: int = 1
    elapsed: float = 0.0
    # Neither copied nor masked until somebody reads them: that would be 10 % of a call.
    _received: Mapping[str, str] = attrs.field(default=NO_HEADERS, alias="headers", repr=False, eq=False)
    _mask: Mask = attrs.field(default=NO_SECRETS, alias="mask", repr=False, eq=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, with names in lower case."""
        headers = {name.lower(): value for name, value in self._received.items()}
        return cast("Mapping[str, str]", self._mask.apply(headers))

    @property
    def request_id(self) -> str | None:
        """The id that the server gave the request (``X-Request-ID``), for the vendor's support; None without one."""
        return cast("str | None", self._mask.apply(self._received.get("x-request-id")))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_received": dict(self.headers), "_mask": NO_SECRETS}  # no pickle holds a secret
