"""
Whole completions.

A generation that is not streamed is completed and billed even if the client disconnects. So it runs in a task of the
gateway: if the client leaves, its id is logged, and a repetition of the same request gets its result instead of paying
for another one. OpenAI's clients repeat a request automatically after a timeout.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

import anyio
import attrs
from anyio.abc import TaskGroup

from neuralbox_async import (
    AsyncNeuralBox,
    Generation,
    NeuralBoxError,
    ParsedGeneration,
    ParsingError,
    StreamInterruptedError,
)
from neuralbox_async.gateway._admission import Admission, Ticket
from neuralbox_async.gateway._errors import ErrorBody, Refusal
from neuralbox_async.gateway._log import logger
from neuralbox_async.gateway._requests import ChatRequest
from neuralbox_async.gateway._responses import finish_reason

_MAX_LEFT: Final = 100
_KEPT: Final = 300.0  # seconds for which the result of a call is kept whose client has left
_MAX_REPAIRS: Final = 1


_STOPPED: Final = ErrorBody(
    status=503,
    message="the gateway stopped before the call ended",
    type="server_error",
    code="shutting_down",
    facts={"billed": "unknown"},
)


@attrs.frozen(kw_only=True)
class Completion:
    """
    A *generation*, its text as the client gets it (*content*), and why that ends (*reason*, as OpenAI has it).

    *tokens_used*: NeuralBox tokens of all generations that it took, None if that is unknown.
    """

    generation: Generation
    content: str
    reason: str
    tokens_used: int | None


def tokens_of(error: NeuralBoxError) -> int | None:
    """Return the NeuralBox tokens that a call which ended with *error* cost, None if that is unknown."""
    if error.billed == "no":
        return 0
    if isinstance(error, ParsingError):
        return error.tokens_used
    recovered = error.recovered if isinstance(error, StreamInterruptedError) else None
    return None if recovered is None else recovered.tokens_used


@attrs.define(eq=False)
class PaidCall:
    """
    A whole generation that may be running. *is_wanted*: whether a client waits for it.

    Once *done* is set, either *completion* or *error* is.
    """

    chat: ChatRequest
    ticket: Ticket
    is_wanted: bool = True
    done: anyio.Event = attrs.field(factory=anyio.Event)
    completion: Completion | None = None
    error: Exception | None = None
    ended: float = 0.0


class WholeCalls:
    """The whole completions of a gateway; *tasks* is the task group in which they run."""

    def __init__(self, client: AsyncNeuralBox, admission: Admission, tasks: TaskGroup) -> None:
        self._client, self._admission, self._tasks = client, admission, tasks
        self._left: dict[str, PaidCall] = {}
        self.running = 0

    async def complete(self, chat: ChatRequest, digest: str, *, is_repetition: bool) -> Completion:
        """
        Return the completion for *chat*; *digest* identifies the request, and *is_repetition*: it was sent before.

        Raises `Refusal` and the errors of `AsyncNeuralBox.generate` and `parse`.
        """
        call = self._left.pop(digest, None) if is_repetition else None
        if call is None:
            generations = 1 if chat.output_type is None else 1 + _MAX_REPAIRS
            call = PaidCall(chat, await self._admission.admit(chat.model, generations=generations))
            self.running += 1
            self._tasks.start_soon(self._run, call)
        call.is_wanted = True
        try:
            await call.done.wait()
        except anyio.get_cancelled_exc_class():
            call.is_wanted = False
            self._keep(digest, call)
            raise
        if call.error is not None:
            raise call.error
        if call.completion is None:
            raise RuntimeError("a call ended without a result")
        return call.completion

    def _keep(self, digest: str, call: PaidCall) -> None:
        now = time.monotonic()
        old = [key for key, left in self._left.items() if left.done.is_set() and now - left.ended > _KEPT]
        for key in [*old, *list(self._left)[: max(0, len(self._left) - len(old) - _MAX_LEFT + 1)]]:
            self._left.pop(key, None)
        self._left[digest] = call

    async def _run(self, call: PaidCall) -> None:
        ticket = call.ticket
        ticket.is_wanted = lambda: call.is_wanted
        tokens, generations = None, 1
        try:
            call.completion, generations = await self._generate(call.chat, ticket)
            tokens = call.completion.tokens_used
        except NeuralBoxError as error:
            call.error, tokens = error, tokens_of(error)
            generations = error.attempts if isinstance(error, ParsingError) else 1
        except Exception as error:  # noqa: BLE001 - raised again where the client waits
            call.error = error
        except BaseException:
            call.error = Refusal(_STOPPED)
            logger.warning(
                "a call of %s was ended by the stop of the gateway: it may have been billed", call.chat.model
            )
            raise
        finally:
            self.running -= 1
            ticket.release(tokens, generations=max(1, generations))
            call.ended = time.monotonic()
            call.done.set()
        if not call.is_wanted:
            _log_left(call)

    async def _generate(self, chat: ChatRequest, ticket: Ticket) -> tuple[Completion, int]:
        if chat.output_type is None:
            generation = await ticket.send(lambda: self._client.generate(**parameters_of(chat), wait=True))
            return _completion(generation, generation.content, generation.tokens_used), 1
        parsed: ParsedGeneration[Any] = await ticket.send(
            lambda: self._client.parse(
                **parameters_of(chat),
                output_type=chat.output_type,
                max_repairs=min(_MAX_REPAIRS, ticket.generations - 1),
                max_tokens_used=ticket.max_tokens_used or None,
            )
        )
        content = json_text(parsed.generation.content, parsed.value)
        return _completion(parsed.generation, content, parsed.tokens_used), len(parsed.attempts)


def _completion(generation: Generation, content: str, tokens_used: int | None) -> Completion:
    reason = finish_reason(generation.finish_reason)
    return Completion(generation=generation, content=content, reason=reason, tokens_used=tokens_used)


def parameters_of(chat: ChatRequest) -> dict[str, Any]:
    """Return the parameters of *chat* that the methods of a client share."""
    return {
        "model": chat.model,
        "messages": chat.messages,
        "temperature": chat.temperature,
        "max_tokens": chat.max_tokens,
    }


def json_text(text: str, value: object) -> str:
    """Return *text* if it is the JSON of *value* and nothing else, and otherwise the JSON of *value*."""
    try:
        if json.loads(text) == value:
            return text.strip()
    except (ValueError, RecursionError):
        pass
    return json.dumps(value, ensure_ascii=False)


def _log_left(call: PaidCall) -> None:
    """Log how a call ended whose client has left: what was paid for can be retrieved."""
    if call.completion is not None:
        generation = call.completion.generation
        cost = (
            "at an unknown cost" if call.completion.tokens_used is None else f"for {call.completion.tokens_used} tokens"
        )
        logger.warning(
            "the client left; generation %r was completed %s: `neuralbox retrieve` has it", generation.id, cost
        )
    elif isinstance(call.error, NeuralBoxError):
        error = call.error
        facts = (type(error).__name__, error.billed, error.generation_id)
        logger.warning("the client left; its call ended with %s (billed: %s, generation: %r)", *facts)
    elif not isinstance(call.error, Refusal):
        logger.error("the client left; its call failed", exc_info=call.error)
