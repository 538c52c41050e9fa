"""
The conversation of `AsyncNeuralBox.parse`: a request for JSON, and repairs, in which it goes on with the problems.

The API has no response format: the schema is in the system message.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from neuralbox_async._call import generating, masking
from neuralbox_async._clock import now
from neuralbox_async._parsed import (
    InvalidOutputError,
    ParsedGeneration,
    ParsingError,
    Problem,
    shortened,
    summary_of,
    total_tokens,
)
from neuralbox_async._types import Generation, Message, Messages, messages_from
from neuralbox_async._validation import check_count, check_optional_count, is_blank, plain_number
from neuralbox_async._wire.output_types import output_type_of

if TYPE_CHECKING:
    from neuralbox_async._call.executor import Call, Executor
    from neuralbox_async._errors import BillingStatus
    from neuralbox_async._secret import Mask
    from neuralbox_async._wire.output_types import OutputType

T = TypeVar("T")

__all__ = [
    "Repairs",
    "instructions",
    "output_type_of",
    "parse",
    "parsing_error",
    "repair_messages",
    "token_limit",
    "value_of",
]

_INSTRUCTIONS = (
    "Respond with one JSON value that conforms to this JSON Schema, and with nothing else: "
    "no explanation and no code fence.\n\n"
)
_REPAIR = (
    "Your response does not conform to the JSON Schema:\n\n{problems}\n\nRespond with the whole corrected JSON value."
)
_MAX_PROBLEMS = 20
# The vendor documents no reasons; these are those of other APIs. Without one, the provider's counts decide.
_CUT_REASONS = frozenset({"length", "max_tokens", "MAX_TOKENS", "max_output_tokens"})


def instructions(output_type: OutputType[Any], system: str | None) -> str:
    """Return the system message that requests a value of *output_type*, after the user's own *system* message."""
    schema = _with_instructions(output_type.schema_text)
    return schema if system is None or is_blank(system) else f"{system}\n\n{schema}"


@functools.lru_cache(64)
def _with_instructions(schema_text: str) -> str:
    # The same object for each call: its hash is computed once, and so are its bytes (benchmark scenario `parse`).
    return _INSTRUCTIONS + schema_text


def repair_messages(messages: Messages, text: str, problems: tuple[Problem, ...]) -> tuple[Message, ...]:
    """Return the conversation *messages* continued with the invalid response *text* and its *problems*."""
    lines = [f"- {shortened(problem)}" for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        lines.append(f"- and {len(problems) - _MAX_PROBLEMS} more")
    turn = Message("user", _REPAIR.format(problems="\n".join(lines)))
    response = () if is_blank(text) else (Message("assistant", text),)
    return (*messages_from(messages), *response, turn)


def value_of(output_type: OutputType[T], generation: Generation, max_tokens: int | None, mask: Mask | None) -> T:
    """
    Return the value in the text of *generation*, which was requested with *max_tokens*.

    A text that ends in a number at *max_tokens* has perhaps not all of its digits. Raises `InvalidOutputError`, whose
    problems have none of the secrets of *mask*.
    """
    cut = (generation.finish_reason is not None or max_tokens is not None) and _is_cut(generation, max_tokens)
    try:
        return output_type.parse(generation.content, cut=cut)
    except InvalidOutputError:
        masked = generation.content if mask is None else masking.mask_text(generation.content, mask)
        if masked is generation.content:
            raise
    output_type.parse(masked, cut=cut)
    raise InvalidOutputError((Problem("$", "it is invalid, and has a secret in it"),))


def token_limit(max_tokens: int | None, extra_body: Mapping[str, Any] | None) -> int | None:
    """Return the *max_tokens* that is sent, which *extra_body* may replace."""
    limit = plain_number(extra_body.get("max_tokens", max_tokens) if extra_body else max_tokens)
    return limit if isinstance(limit, int) else None


def _is_cut(generation: Generation, max_tokens: int | None) -> bool:
    if (reason := generation.finish_reason) is not None:
        return reason in _CUT_REASONS
    written = None if generation.usage is None else generation.usage.completion_tokens
    return max_tokens is not None and written is not None and written >= max_tokens


@attrs.frozen(kw_only=True)
class Repairs:
    """How many repairs are allowed, and how many NeuralBox tokens all generations may cost; None: any number."""

    maximum: int = 1
    max_tokens_used: int | None = None

    @classmethod
    def of(cls, maximum: int, max_tokens_used: int | None) -> Repairs:
        """Return the repairs for the parameters of a user. Raises `InvalidParameterError`."""
        if type(maximum) is int and maximum == 1 and max_tokens_used is None:
            return _ONE  # the default (benchmark scenario `parse`)
        return cls(
            maximum=check_count("max_repairs", maximum, minimum=0),
            max_tokens_used=check_optional_count("max_tokens_used", max_tokens_used, minimum=1),
        )

    def refusal(self, generations: tuple[Generation, ...]) -> str | None:
        """Return why there is no repair after these *generations*, or None if there is one."""
        if len(generations) > self.maximum:
            return "" if self.maximum == 0 else f"after {self.maximum} repair{'s' if self.maximum > 1 else ''}"
        if self.max_tokens_used is None:
            return None
        used = total_tokens(generations)
        if used is None:
            return "without a repair, because the API did not report what the last generation cost"
        # The best estimate of the cost of a repair: that of the most expensive generation so far.
        expected = used + max(generation.tokens_used or 0 for generation in generations)
        if expected > self.max_tokens_used:
            return f"without a further repair, which could exceed max_tokens_used ({self.max_tokens_used})"
        return None


_ONE = Repairs()


async def parse(
    executor: Executor,
    call_with: Callable[[Messages, int], Call],
    messages: Messages,
    output_type: OutputType[T],
    repairs: Repairs,
    *,
    max_tokens: int | None,
) -> ParsedGeneration[T]:
    """
    Return the value that is generated for *messages*.

    *call_with* returns the call with other messages, the first or a repair, by its number. Raises the errors of the
    first call, and `ParsingError`, also when a repair fails: what was paid for is not lost. When a repair is cancelled,
    the error of that has the `ParsingError` as its ``__cause__``.
    """
    call = call_with(messages, 0)
    started, deadline = call.started, call.deadline
    generations: tuple[Generation, ...] = (await generating.generate(executor, call, wait=True),)
    while True:
        try:
            value = value_of(output_type, generations[-1], max_tokens, call.mask)
        except InvalidOutputError as error:
            problems = error.problems
        except BaseException as error:  # of the user's own class, or a panic in the core of pydantic
            unknown = (Problem("$", f"its check raised {type(error).__name__}"),)
            raise error from parsing_error(generations, unknown, now() - started, "")
        else:
            return ParsedGeneration(value=value, attempts=generations)
        refusal = repairs.refusal(generations)
        if refusal is None and now() >= deadline:
            refusal = "without a further repair, because the time is over"
        if refusal is not None:
            raise parsing_error(generations, problems, now() - started, refusal)
        repair: Call | None = None
        try:
            messages = repair_messages(messages, generations[-1].content, problems)
            repair = call_with(messages, len(generations))
            repair.deadline = deadline
            generations = (*generations, await generating.generate(executor, repair, wait=True))
            call = repair
        except Exception as error:  # not only our own: the user's key function may raise any
            ending, billed = f"and the repair failed: {error}", _billing_of(repair)
            raise parsing_error(generations, problems, now() - started, ending, cause=error, repair=billed) from error
        except BaseException as error:  # such as a cancellation, which has to go on
            ending, billed = "and the repair was cancelled", _billing_of(repair)
            raise error from parsing_error(generations, problems, now() - started, ending, repair=billed)


def _billing_of(repair: Call | None) -> BillingStatus:
    return "unknown" if repair is not None and repair.possibly_billed else "no"


def parsing_error(
    generations: tuple[Generation, ...],
    problems: tuple[Problem, ...],
    elapsed: float,
    ending: str,
    *,
    cause: Exception | None = None,
    repair: BillingStatus = "no",
) -> ParsingError:
    """
    Return the error of *generations*, of which none is valid.

    *ending*: why no repair followed; see `Repairs`. *cause*, *repair*: of a repair that failed, see `ParsingError`.
    """
    msg = f"the generated text is not of the output type{f', {ending}' if ending else ''}: {summary_of(problems)}"
    return ParsingError(msg, generations=generations, problems=problems, elapsed=elapsed, cause=cause, repair=repair)
