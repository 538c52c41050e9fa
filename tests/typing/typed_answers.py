"""What type checkers infer about typed answers, for both clients."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypedDict, assert_type

import attrs

from neuralbox_async import AsyncNeuralBox, Generation, ParsedGeneration, ParsingError, Problem
from neuralbox_sync import NeuralBox


@attrs.frozen
class City:
    name: str
    population: int


class Row(TypedDict):
    name: str


class Pair(NamedTuple):
    x: float
    y: float


async def asynchronous(client: AsyncNeuralBox) -> None:
    result = await client.parse("gpt-5", "Hi", City, max_repairs=2, max_tokens_used=10, system="Short", timeout=None)
    assert_type(result, ParsedGeneration[City])
    assert_type(result.value, City)
    assert_type(result.value.population, int)
    assert_type(result.generation, Generation)
    assert_type(result.attempts, tuple[Generation, ...])
    assert_type(result.tokens_used, int | None)
    assert_type((await client.parse("gpt-5", "Hi", list[City])).value, list[City])
    assert_type((await client.parse("gpt-5", "Hi", dict[str, int])).value, dict[str, int])
    assert_type((await client.parse("gpt-5", "Hi", Row)).value, Row)
    assert_type((await client.parse("gpt-5", "Hi", Pair)).value, Pair)


def blocking(client: NeuralBox) -> None:
    result = client.parse("gpt-5", "Hi", City, max_repairs=2, max_tokens_used=10, system="Short", timeout=None)
    assert_type(result, ParsedGeneration[City])
    assert_type(result.value, City)
    assert_type(result.attempts, tuple[Generation, ...])
    assert_type(client.parse("gpt-5", "Hi", list[City]).value, list[City])
    assert_type(client.parse("gpt-5", "Hi", Row).value, Row)


Answer: TypeAlias = City | Pair


async def special_forms(client: AsyncNeuralBox, dynamic: Any) -> None:
    assert_type((await client.parse("gpt-5", "Hi", City | Pair)).value, City | Pair)
    assert_type((await client.parse("gpt-5", "Hi", Answer)).value, City | Pair)
    assert_type((await client.parse("gpt-5", "Hi", City | None)).value, City | None)
    assert_type((await client.parse("gpt-5", "Hi", Literal["yes", "no"])).value, Literal["yes", "no"])
    assert_type((await client.parse("gpt-5", "Hi", Annotated[int, "in meters"])).value, int)
    assert_type((await client.parse("gpt-5", "Hi", dynamic)).value, Any)


def blocking_special_forms(client: NeuralBox, dynamic: Any) -> None:
    assert_type(client.parse("gpt-5", "Hi", City | Pair).value, City | Pair)
    assert_type(client.parse("gpt-5", "Hi", Answer).value, City | Pair)
    assert_type(client.parse("gpt-5", "Hi", City | None).value, City | None)
    assert_type(client.parse("gpt-5", "Hi", Literal["yes", "no"]).value, Literal["yes", "no"])
    assert_type(client.parse("gpt-5", "Hi", Annotated[int, "in meters"]).value, int)
    assert_type(client.parse("gpt-5", "Hi", dynamic).value, Any)


def rejected(client: NeuralBox) -> None:
    client.parse("gpt-5", "Hi")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def errors(error: ParsingError) -> None:
    assert_type(error.problems, tuple[Problem, ...])
    assert_type(error.generations, tuple[Generation, ...])
    assert_type(error.tokens_used, int | None)
    details: dict[str, Any] = {problem.path: problem.reason for problem in error.problems}
    assert details
