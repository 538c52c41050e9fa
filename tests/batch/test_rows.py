"""Rows of tables as requests: what they carry comes back with their results, and what they lack is noticed once."""

from __future__ import annotations

import sqlite3

import attrs
import pytest
from transports import results_of

from neuralbox_async import APIConnectionError, GenerateRequest, InvalidParameterError
from neuralbox_sync import NeuralBox

pytestmark = pytest.mark.usefixtures("no_task_left")

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")

COLUMNS = {"id": [3, 5], "prompt": ["x", "y"], "stars": [1, 4]}


def sent(transport):
    """Return the bodies that were sent."""
    return [
        {name: value for name, value in request.items() if name not in {"method", "path", "headers"}}
        for request in transport.requests
    ]


# --------------------------------------------------------------------------------------------------------------- items


async def test_other_members_are_not_sent(make):
    """Members that are no fields are not sent: the result has the object as it was given."""
    client, transport = make()
    rows = [
        {"id": 7, "prompt": "x", "stars": 5, "nested": {"a": [object()]}},
        "y",
        GenerateRequest("m", "z", extra_body={"top_p": 1}),
        {"prompt": "a", "extra_body": {"seed": 4}},
    ]
    results = await results_of(client.generate_many(rows, model="m", ordered=True))

    assert all(row is result.item for row, result in zip(rows, results, strict=True))
    assert [{"messages", "model"}] * 2 == [set(body) for body in sent(transport)[:2]]
    assert (1, 4) == (sent(transport)[2]["top_p"], sent(transport)[3]["seed"])


@pytest.mark.parametrize("failing", ["not connected", "invalid", "repeated key", "unknown", "not a request"])
async def test_failures_have_their_item(make, journal, failing):
    """A result without a generation has its item, too."""
    error = APIConnectionError("reset", request_sent=True) if failing == "unknown" else APIConnectionError("refused")
    client, _ = make(lambda _request: error, max_retries=0)
    row = {"id": 7, "prompt": "" if failing == "invalid" else "x", "key": "k"}
    rows = [5] if failing == "not a request" else [row, dict(row)] if failing == "repeated key" else [row]
    if failing == "unknown":
        await results_of(client.generate_many(rows, model="m", journal=journal))
    result = (await results_of(client.generate_many(rows, model="m", journal=journal, ordered=True)))[-1]

    assert rows[-1] is result.item
    assert result.error is not None
    if failing != "not a request":
        assert "k" == result.key


async def test_results_of_odd_items_can_be_compared(make):
    """The item is not part of comparisons, and not of `repr`: a row may compare to something that is no truth value."""
    client, _ = make()
    rows = [{"prompt": "x", "row": pandas.Series([1, 2])}]
    (result,) = await results_of(client.generate_many(rows, model="m"))

    assert attrs.evolve(result, item={**rows[0]}) == result
    assert "dtype" not in repr(result)


async def test_rows_of_a_database(make):
    """A row that has names but is no mapping, such as of sqlite3, is a dict; the result has the row."""
    client, transport = make()
    with sqlite3.connect(":memory:") as connection:
        connection.row_factory = sqlite3.Row
        cursor = connection.execute("select 3 as id, 'x' as prompt, 3 as key union select 5, 'y', 5")
        results = await results_of(client.generate_many(cursor, model="m", ordered=True))
    connection.close()

    assert [3, 5] == [result.item["id"] for result in results] == [result.key for result in results]
    assert ["x", "y"] == [body["messages"][0]["content"] for body in sent(transport)]


async def test_near_misses(make):
    """A row with a name that is nearly a field is not sent; its error has both names."""
    client, transport = make()
    (result,) = await results_of(client.generate_many([{"prompt": "x", "temprature": 1}], model="m"))

    assert "temprature" == result.error.parameter
    assert "'temperature'" in str(result.error)
    assert [] == transport.requests


# ----------------------------------------------------------------------------------------------------- usage errors


@pytest.mark.parametrize(
    "frame, line",
    [
        (pandas.DataFrame(COLUMNS), "df.to_dict('records')"),
        (polars.DataFrame(COLUMNS), "df.to_dicts()"),
        (polars.LazyFrame(COLUMNS), "df.collect().to_dicts()"),
    ],
    ids=["pandas", "polars", "lazy polars"],
)
async def test_data_frames(make, frame, line):
    """A DataFrame is refused at once, with the line to write instead, and that line works."""
    client, transport = make()
    with pytest.raises(InvalidParameterError) as caught:
        client.generate_many(frame, model="m")
    assert f"rows, not a {type(frame).__name__}: write {line}, " in str(caught.value)

    rows = eval(line, {"df": frame})  # noqa: S307 - it is our own
    results = await results_of(client.generate_many(rows, model="m", ordered=True))
    assert [1, 4] == [result.item["stars"] for result in results]
    assert [{"messages", "model"}] * 2 == [set(body) for body in sent(transport)]


async def test_classes_derived_from_data_frames(make):
    """A class derived from a DataFrame is refused as well; a Series of prompts, and a class with that name are not."""

    class GeoDataFrame(pandas.DataFrame):
        pass

    class DataFrame(list):
        pass

    client, _ = make()
    with pytest.raises(InvalidParameterError, match="not a DataFrame"):
        client.generate_many(GeoDataFrame(COLUMNS), model="m")
    for prompts in (pandas.Series(["x", "y"]), polars.Series(["x", "y"]), DataFrame(["x", "y"])):
        assert 2 == len(await results_of(client.generate_many(prompts, model="m")))


@pytest.mark.parametrize("rows", [["x", "y"], [{"prompt": "x"}], ("x",), [{"prompt": "x", "model": None}, "y"]])
async def test_a_missing_model(make, rows):
    """A batch whose first request has no model is one error: at once for a sequence, where it is read for others."""
    client, transport = make()
    with pytest.raises(InvalidParameterError, match="an argument") as caught:
        client.generate_many(rows)
    assert "model" == caught.value.parameter

    async def lazily():
        for row in rows:
            yield row

    for requests in (iter(rows), lazily()):
        batch = client.generate_many(requests)
        with pytest.raises(InvalidParameterError, match="an argument"):
            await results_of(batch)
        assert (0, 0) == (batch.report.failed, batch.report.completed)
    assert [] == transport.requests


async def test_one_row_without_a_model(make):
    """A later row without a model, where the others have one, is an invalid row."""
    client, _ = make()
    rows = [{"prompt": "x", "model": "m"}, {"prompt": "y"}, {"prompt": "z", "model": "m"}]
    results = await results_of(client.generate_many(rows, ordered=True))

    assert [None, "model", None] == [result.error and result.error.parameter for result in results]


async def test_an_odd_first_row(make):
    """A first row whose methods raise exceptions is an invalid row, also if the batch has no model."""

    class Row(dict):
        def get(self, *_):
            raise LookupError("no connection to the database")

    client, _ = make()
    results = await results_of(client.generate_many([Row(prompt="x"), {"prompt": "y", "model": "m"}], ordered=True))

    assert [InvalidParameterError, None] == [result.error and type(result.error) for result in results]


async def test_no_rows(make):
    """An empty batch needs no model."""
    client, _ = make()
    assert [] == await results_of(client.generate_many([]))


async def test_empty_prompts(make):
    """An empty prompt is an invalid request, which is not sent."""
    client, transport = make()
    results = await results_of(client.generate_many(["", {"prompt": " \n"}, "x"], model="m", ordered=True))

    assert [True, True, False] == [isinstance(result.error, InvalidParameterError) for result in results]
    assert 1 == len(transport.requests)


# ------------------------------------------------------------------------------------------------------------ blocking


def test_blocking(neuralbox_server):
    """The blocking client has all of it."""
    with NeuralBox(**neuralbox_server.client_options) as client:
        with pytest.raises(InvalidParameterError, match="to_dict"):
            client.generate_many(pandas.DataFrame(COLUMNS), model="gpt-5")
        with pytest.raises(InvalidParameterError, match="an argument"):
            client.generate_many(["x"])
        frame = pandas.DataFrame(COLUMNS).set_index("id")
        rows = ({"key": key, **row} for key, row in zip(frame.index, frame.to_dict("records"), strict=True))
        with client.generate_many(rows, model="gpt-5") as results:
            stars = {result.key: result.item["stars"] for result in results}
    assert {3: 1, 5: 4} == stars
