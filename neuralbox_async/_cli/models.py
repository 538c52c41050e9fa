"""`neuralbox models` and `neuralbox price`: what can be generated, and what it costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import anyio
import click

from neuralbox_async import AsyncNeuralBox, Model, NotFoundError, Price
from neuralbox_async._cli import options
from neuralbox_async._cli.json_output import value_line
from neuralbox_async._cli.tables import print_table
from neuralbox_async._cli.terminal import check_stdout, spinner


@click.command(short_help="List the models and their prices.")
@click.argument("model", required=False)
@options.category
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def models(*, model: str | None, category: str | None, as_json: bool) -> None:
    """
    List the models of the catalogue, or only MODEL. This costs nothing.

    TOKENS is the price of one generation in NeuralBox tokens.

    \b
    Examples:
      neuralbox models --category text
      neuralbox models gpt-5
      neuralbox models --json | jq -r .slug
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    check_stdout()
    found = [entry for entry in anyio.run(_get_models, model) if category in {None, entry.category}]
    if as_json:
        sys.stdout.writelines(map(value_line, found))
        return
    print_table(("MODEL", "CATEGORY", "TOKENS", "PLAN", "STREAMS"), map(_row, found))


def _row(model: Model) -> tuple[object, ...]:
    streams = {True: "yes", False: "no", None: None}[model.supports_streaming]
    return model.slug, model.category, _price_range(model), model.min_plan, streams


def _price_range(price: Model | Price) -> object:
    lowest, highest = price.min_token_cost, price.max_token_cost
    return price.token_cost if lowest is None or highest is None or lowest == highest else f"{lowest:,}-{highest:,}"


async def _get_models(model: str | None) -> list[Model]:
    async with AsyncNeuralBox() as client:
        with spinner("getting the models"):
            return await client.list_models() if model is None else [await client.get_model(model)]


def _parse_params(_context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE.", param=parameter)
        try:
            params[name] = json.loads(value)
        except ValueError:  # a text without quotes
            params[name] = value
    return params


@click.command(short_help="Print what generations cost.")
@click.argument("model")
@click.option("--count", type=click.IntRange(min=1), default=1, metavar="N", help="The number of generations.")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parse_params,
    help="An option that the price depends on, such as quality=hd. Can be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def price(*, model: str, count: int, params: Mapping[str, Any], as_json: bool) -> None:
    """
    Print the price of a generation of MODEL in NeuralBox tokens, as the API calculates it. This costs nothing.

    TOKENS is the price with these options; ONE is that of one generation with any options.

    \b
    Examples:
      neuralbox price gpt-5
      neuralbox price dall-e-3 --param quality=hd --param size=1024x1792
      neuralbox price gpt-5 --count 1000 --json
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    check_stdout()
    try:
        found = anyio.run(_get_price, model, params, count)
    except NotFoundError as error:
        raise click.ClickException(f"{error.message}; `neuralbox models` lists the models") from error
    if as_json:
        sys.stdout.write(value_line(found))
        return
    print_table(
        ("MODEL", "COUNT", "TOKENS", "ONE", "PRICING"),
        [(model, count, found.token_cost, _price_range(found), found.pricing_type)],
    )


async def _get_price(model: str, params: Mapping[str, Any], count: int) -> Price:
    async with AsyncNeuralBox() as client:
        with spinner(f"getting the price of {model}"):
            return await client.get_price(model, params, count)
