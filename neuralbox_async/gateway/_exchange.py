"""One exchange with a client of the gateway: its request, its response, and what the log has of it."""

from __future__ import annotations

from typing import Any, Final

import anyio
import attrs
from aiohttp import web
from aiohttp.http import HttpProcessingError, HttpVersion11

from neuralbox_async import BillingStatus, GenerationId
from neuralbox_async.gateway._errors import STOPPED, ErrorBody, invalid

_BODY_TIMEOUT: Final = 60.0  # seconds for a client to send its request
_JSON: Final = "application/json"
_MAX_SHOWN: Final = 100  # characters of each fact in the log


class _EventStream(web.StreamResponse):
    """A response whose head is sent with its first event: each send may wake the client."""

    _send_headers_immediately = False


@attrs.define(eq=False)
class Exchange:
    """
    A request, and the *headers* of each of its responses.

    *scope*: everything that the request waits for; `cut` cancels it. *billed*: what is known of the bill until then.
    For the log: *model*, *generation_id*, *tokens_used* (NeuralBox tokens), *status*, *note*.
    """

    request: web.BaseRequest
    headers: dict[str, str]
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    billed: BillingStatus = "no"
    model: str = ""
    generation_id: GenerationId | None = None
    tokens_used: int | None = None
    status: int | None = None
    note: str = ""
    stream: web.StreamResponse | None = None

    def describe(
        self,
        *,
        model: str = "",
        generation_id: GenerationId | None = None,
        tokens_used: int | None = None,
        note: str = "",
        billed: BillingStatus = "no",
    ) -> None:
        """Record facts; what is left out stays as it is."""
        self.billed = self.billed if billed == "no" else billed
        self.model = model or self.model
        self.generation_id = self.generation_id if generation_id is None else generation_id
        self.tokens_used = self.tokens_used if tokens_used is None else tokens_used
        self.note = note or self.note

    @property
    def is_cut(self) -> bool:
        """Whether the gateway has ended it."""
        return self.scope.cancel_called

    def cut(self) -> None:
        """End it, because the gateway stops. A stream sends its last event then; other calls get `cut_error`."""
        self.scope.cancel()

    def end_cut(self) -> web.StreamResponse:
        """Return the response after `cut`."""
        return self.refuse(self.cut_error) if self.stream is None else self.stream

    @property
    def cut_error(self) -> ErrorBody:
        """The error of a call that the stop of the gateway has ended."""
        facts: dict[str, Any] = {"billed": self.billed}
        if self.generation_id is not None:
            facts["generation_id"] = self.generation_id
        return attrs.evolve(STOPPED, facts=facts, retry=self.billed == "no")

    def mark_disconnected(self) -> None:
        """Record that the client has disconnected before the end of the response."""
        self.status = None

    async def read_body(self, max_bytes: int) -> bytes:
        """Return the body. Raises `Refusal` if it is too large, too slow, malformed, or not JSON by its type."""
        if self.request.content_type != _JSON:
            # Other types can be sent by any website without asking first.
            raise invalid(f"send JSON, with the header Content-Type: {_JSON}", status=415)
        too_large = invalid(f"the body is larger than {max_bytes} bytes", status=413)
        if (self.request.content_length or 0) > max_bytes:
            raise too_large
        self._ask_for_body()
        body = bytearray()
        with anyio.move_on_after(_BODY_TIMEOUT):
            try:
                async for piece in self.request.content.iter_any():
                    body += piece
                    if len(body) > max_bytes:
                        raise too_large
            except (HttpProcessingError, web.RequestPayloadError):
                raise invalid("the body of the request is damaged") from None
            return bytes(body)
        raise invalid(f"the body did not arrive within {_BODY_TIMEOUT:g} s", status=408)

    def _ask_for_body(self) -> None:
        """Send the interim response that a client with ``Expect: 100-continue`` waits for (RFC 9110, 10.1.1)."""
        expectation = self.request.headers.get("Expect")
        if expectation is None or self.request.version < HttpVersion11:
            return
        if expectation.lower() != "100-continue":
            raise invalid("there is only the expectation 100-continue", status=417)
        transport = self.request.transport
        # A part of the body that is here already shows that the client does not wait.
        if transport is not None and not self.request.content.total_bytes:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def respond(self, body: bytes, headers: dict[str, str] | None = None, *, status: int = 200) -> web.Response:
        """Return a response with the JSON *body*."""
        self.status = status
        response = web.Response(
            status=status, body=body, content_type=_JSON, headers={**self.headers, **(headers or {})}
        )
        if "Expect" in self.request.headers and not self.request.content.is_eof():
            response.force_close()  # whether the client sends its body after this is open
        return response

    async def send(self, body: bytes, headers: dict[str, str]) -> web.Response:
        """Send a response with the JSON *body*. Raises `ConnectionError` if the client has disconnected."""
        response = self.respond(body, headers)
        with anyio.CancelScope(shield=True):  # its text is paid for: the end of the gateway lets it be sent
            await response.prepare(self.request)
            await response.write_eof()
        return response

    def respond_without_body(self, headers: dict[str, str]) -> web.Response:
        """Return a response that has only *headers*."""
        self.status = 204
        return web.Response(status=204, headers={**self.headers, **headers})

    def refuse(self, error: ErrorBody) -> web.Response:
        """Return the response for *error*."""
        self.note = self.note or error.code or error.type
        return self.respond(error.encode(), error.headers, status=error.status)

    async def start_stream(self, headers: dict[str, str]) -> web.StreamResponse:
        """Begin a stream of server-sent events; its head is sent with the first of them."""
        self.status = 200
        # X-Accel-Buffering: nginx would keep the events until its buffer is full.
        own = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        self.stream = response = _EventStream(headers={**self.headers, **own, **headers})
        if self.request.version < HttpVersion11:
            response.force_close()  # its end is that of the connection
        await response.prepare(self.request)
        return response

    def log_line(self, elapsed: float) -> str:
        """Return the line of the log: never a text or a key; what the client or the API named is made printable."""
        known: list[Any] = [self.request.method, self.request.path, self.status or "disconnected", self.model]
        known.append(f"{elapsed:.3f} s")
        if self.tokens_used is not None:
            known.append(f"{self.tokens_used} token{'' if self.tokens_used == 1 else 's'}")
        known += [self.generation_id, self.note]
        return " ".join(_printable(str(fact)) for fact in known if fact not in (None, ""))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:_MAX_SHOWN])
