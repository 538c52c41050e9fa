"""
Whole completions.

A generation that is not streamed is completed and billed even if the client disconnects. So it runs in a task of the
gateway: if the client leaves, its id is logged, and a repetition of the same request gets its result instead of paying
for another one. OpenAI's clients repeat a request automatically after a timeout.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

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
from neuralbox_async.gateway._errors import STOPPED, Refusal
from neuralbox_async.gateway._log import logger
from neuralbox_async.gateway._repetitions import Completion, PaidCall, Repetitions
from neuralbox_async.gateway._requests import ChatRequest
from neuralbox_async.gateway._responses import finish_reason

T = TypeVar("T")

_MAX_REPAIRS: Final = 1
_STOPPED_UNSENT: Final = attrs.evolve(STOPPED, facts={"billed": "no"}, retry=True)


def tokens_of(error: NeuralBoxError) -> int | None:
    """Return the NeuralBox tokens that a call which ended with *error* cost, None if that is unknown."""
    if error.billed == "no":
        return 0
    if isinstance(error, ParsingError):
        return error.tokens_used
    recovered = error.recovered if isinstance(error, StreamInterruptedError) else None
    return None if recovered is None else recovered.tokens_used


@contextmanager
def _not_cut() -> Generator[None]:
    """Let a client wait for its call when the gateway stops: that ends the call, and the client gets its error."""
    with anyio.CancelScope(shield=True):
        yield


class WholeCalls:
    """The whole completions of a gateway; *tasks* is the task group in which they run."""

    def __init__(self, client: AsyncNeuralBox, admission: Admission, tasks: TaskGroup) -> None:
        self._client, self._admission, self._tasks = client, admission, tasks
        self._repetitions = Repetitions()
        self.running = 0

    async def respond(
        self, chat: ChatRequest, digest: str, send: Callable[[Completion], Awaitable[T]], *, is_repetition: bool
    ) -> T:
        """
        Return the result of *send*, which sends the completion for *chat* to the client.

        *digest* identifies the request, and *is_repetition*: it was sent before. Until *send* has returned, a
        repetition continues this call. Raises `Refusal`, and the errors of `AsyncNeuralBox.generate` and `parse`, and
        of *send*.
        """
        call = self._repetitions.take(digest) if is_repetition else None
        if call is None:
            call = PaidCall(digest)
            self.running += 1
            self._tasks.start_soon(self._run, call, chat)
        self._repetitions.add(call)
        call.waiting += 1
        try:
            with _not_cut():
                await call.done.wait()
                response = await send(call.result())
        except Exception as error:
            if not isinstance(error, ConnectionError):  # which means that the client has left
                self._repetitions.remove(call)
                self._repetitions.refused(digest, error)
            raise
        else:
            self._repetitions.remove(call)
            return response
        finally:
            call.leave()

    async def _run(self, call: PaidCall, chat: ChatRequest) -> None:
        call.error = Refusal(_STOPPED_UNSENT)
        try:
            if (ticket := await self._admit(call, chat)) is not None:
                await self._generate_with(ticket, call, chat)
        except Exception as error:  # noqa: BLE001 - raised again where the client waits
            call.error = error
        finally:
            self.running -= 1
            call.ended = time.monotonic()
            call.done.set()
        if call.is_left:
            _log_left(call)
            _drop_tracebacks(call.error)

    async def _admit(self, call: PaidCall, chat: ChatRequest) -> Ticket | None:
        """Return the ticket of *call*, or None if nobody waits for it any more."""
        generations = 1 if chat.output_type is None else 1 + _MAX_REPAIRS
        with call.turn:
            ticket = await self._admission.admit(chat.model, generations=generations)
            call.is_queued, ticket.is_wanted = False, lambda: not call.is_left
            return ticket
        return None

    async def _generate_with(self, ticket: Ticket, call: PaidCall, chat: ChatRequest) -> None:
        tokens, generations = None, 1
        try:
            call.completion, generations = await self._generate(chat, ticket)
            call.error, tokens = None, call.completion.tokens_used
        except NeuralBoxError as error:
            tokens = tokens_of(error)
            generations = error.attempts if isinstance(error, ParsingError) else 1
            raise
        except anyio.get_cancelled_exc_class():
            if ticket.is_sent:
                call.error = Refusal(STOPPED)
                logger.warning("a call of %s was ended by the stop of the gateway: it may have been billed", chat.model)
            raise
        finally:
            ticket.release(tokens, generations=max(1, generations))

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


def _drop_tracebacks(error: BaseException | None) -> None:
    """Drop the tracebacks of an *error* that is kept: their frames hold the prompt."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


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
