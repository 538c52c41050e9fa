"""Lazy messages in a dict of a blocking batch, as of a database, are read in the thread that reads the results."""

from __future__ import annotations

import sqlite3

import pytest


@pytest.fixture
def connection():
    """Return a database of SQLite, which refuses other threads."""
    with sqlite3.connect(":memory:") as database:
        database.row_factory = lambda _cursor, row: {"role": "user", "content": row[0]}
        database.execute("CREATE TABLE texts (prompt)")
        database.executemany("INSERT INTO texts VALUES (?)", [(f"text {number}",) for number in range(8)])
        yield database
    database.close()


@pytest.mark.parametrize("source", [list, tuple, iter])
def test_a_cursor(client, connection, source):
    """Each request may have a cursor of its own; `item` has its messages as a list."""
    query = "SELECT prompt FROM texts LIMIT 2 OFFSET ?"
    rows = source([{"key": first, "messages": connection.execute(query, [first])} for first in (0, 2, 4, 6)])
    with client.generate_many(rows, model="gpt-5", ordered=True) as batch:
        results = list(batch)

    assert [f"You said: text {first + 1}" for first in (0, 2, 4, 6)] == [result.unwrap().content for result in results]
    assert {"key": 0, "messages": [{"role": "user", "content": f"text {n}"} for n in (0, 1)]} == results[0].item


def test_a_generator(client):
    """An error of the messages is that of their request; an interrupt leaves none that could be sent in part."""

    def broken(error):
        yield {"role": "user", "content": "first"}
        raise error

    rows = iter([{"messages": broken(ValueError("broken"))}, {"messages": broken(KeyboardInterrupt())}, "Hi"])
    results = []
    with client.generate_many(rows, model="gpt-5") as batch:
        with pytest.raises(KeyboardInterrupt):
            results.extend(batch)
        results.extend(batch)

    failed, interrupted, whole = sorted(results, key=lambda result: result.index)
    assert "broken" == str(failed.error.__cause__)
    assert "non-empty list of messages" in interrupted.error.message
    assert "You said: Hi" == whole.unwrap().content


def test_what_is_no_iterable(client):
    """What cannot be iterated over is an error of its request."""
    with client.generate_many(iter([{"messages": 5}]), model="gpt-5") as batch:
        [result] = batch
    assert "non-empty list of messages" in result.error.message


class Array:
    """Messages like an array of numpy's: asked whether it is true, it raises an exception."""

    def __init__(self, *messages):
        self._messages = messages

    def __iter__(self):
        return iter(self._messages)

    def __len__(self):
        return len(self._messages)

    def __array__(self):
        raise NotImplementedError

    def __bool__(self):
        raise ValueError("The truth value of an array with more than one element is ambiguous")


class Query:
    """Messages like those of a queryset: to ask whether it is true asks the database."""

    def __init__(self, *messages):
        self._messages = messages

    def __iter__(self):
        return iter(self._messages)

    def __bool__(self):
        raise AssertionError("the database was asked")


@pytest.mark.parametrize("kind", [Array, Query])
@pytest.mark.parametrize("source", [list, tuple, iter])
def test_messages_that_have_no_truth_value(client, kind, source):
    """Messages are not asked whether they are true."""
    messages = kind({"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"})
    with client.generate_many(source([{"messages": messages}]), model="gpt-5") as batch:
        assert ["You said: Hi"] == [result.unwrap().content for result in batch]
