"""The error responses of the documented API: an HTTP status, a machine-readable code and a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# Status -> code and message. The first rows are the vendor's error page. The vendor does not document 408 and the
# rows below it, but gateways in front of any API send them.
_DEFAULTS: Final[dict[int, tuple[str, str]]] = {
    400: ("bad_request", "Invalid or missing parameters."),
    401: ("not_authenticated", "Missing or invalid Authorization header."),
    402: ("insufficient_tokens", "Not enough tokens on the balance."),
    403: ("insufficient_plan", "This model needs a higher plan."),
    404: ("not_found", "Not found."),
    409: ("conflict", "The request conflicts with the current state."),
    422: ("validation_error", "The request does not match the schema."),
    429: ("rate_limit_exceeded", "Rate limit exceeded."),
    500: ("provider_error", "The model's provider failed. You were not charged."),
    503: ("model_unavailable", "The model is temporarily unavailable. You were not charged."),
    408: ("request_timeout", "Request timeout."),
    413: ("payload_too_large", "The body is too large."),
    502: ("bad_gateway", "Bad gateway."),
    504: ("gateway_timeout", "Gateway timeout."),
    529: ("overloaded", "Overloaded."),
}


class HTTPError(Exception):
    """An error response with *status*.

    *members* are added at the top level of the body and replace `details`, as in the documented body of a 429.
    """

    def __init__(
        self,
        status: int,
        *,
        code: str | None = None,
        message: str | None = None,
        details: Mapping[str, object] | None = None,
        members: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        default_code, default_message = _DEFAULTS.get(status, ("error", f"HTTP status {status}."))
        self.status = status
        self.code = code or default_code
        self.message = message or default_message
        self.details = details
        self.members = members
        self.headers = headers or {}
        super().__init__(status, self.code, self.message)

    def body(self) -> dict[str, object]:
        """Return the JSON body: the general envelope, or the flat body of a 429."""
        envelope: dict[str, object] = {"error": self.code, "message": self.message}
        if self.members is not None:
            return {**envelope, **self.members}
        return {**envelope, "details": dict(self.details or {})}


def validation_error(errors: Mapping[str, str]) -> HTTPError:
    """Return the 422 for *errors*, which maps each invalid field (`messages.0.role`) to the rule that it breaks."""
    fields = "; ".join(f"{field} {rule}" for field, rule in errors.items())
    return HTTPError(422, message=f"The request does not match the schema: {fields}.", details=dict(errors))
