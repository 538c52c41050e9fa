"""The blocking methods about the account: those of the asynchronous client, with a plain iterator for the history."""

from __future__ import annotations

import pickle
import sqlite3
import threading

import pytest

from neuralbox_async import NeuralBoxError
from neuralbox_sync import Estimate, History, NeuralBox


def test_values(client, neuralbox_server):
    """Each method returns what the asynchronous one does."""
    generation = client.generate("gpt-5", "Hi")

    assert neuralbox_server.balance == client.get_balance().token_balance == generation.balance_remaining
    assert ("Local server", 1) == (client.get_account().name, client.get_stats().total_generations)
    assert "gpt-5" in [model.slug for model in client.list_models()]
    assert (2, 6) == (client.get_model("gpt-5").token_cost, client.get_price("gpt-5", {}, 3).token_cost)


def test_history(client, neuralbox_server):
    """The history is a plain iterator, which requests a page when it is needed."""
    for number in range(5):
        client.generate("gpt-5", f"Prompt {number}")
    before = len(neuralbox_server.requests)
    history = client.list_generations(limit=2)
    assert (before, None) == (len(neuralbox_server.requests), history.total)

    assert isinstance(history, History)
    assert history is iter(history)
    assert "Prompt 4" == next(history).prompt
    assert (1, 5) == (len(neuralbox_server.requests) - before, history.total)
    assert ["Prompt 3", "Prompt 2", "Prompt 1", "Prompt 0"] == [entry.prompt for entry in history]
    assert [] == list(history)


def test_error_between_pages(client, neuralbox_server):
    """After an error, reading on continues with the page that was not received."""
    for number in range(3):
        client.generate("gpt-5", f"Prompt {number}")
    history = client.list_generations(limit=2, max_retries=0)
    first = [next(history), next(history)]
    neuralbox_server.fail(500, code="internal", method="GET", path="/user/history")
    with pytest.raises(NeuralBoxError):
        next(history)

    assert 3 == len({entry.id for entry in [*first, *history]})


def test_history_in_threads(client):
    """Threads that read one history get each entry once."""
    for number in range(6):
        client.generate("gpt-5", f"Prompt {number}")
    history, found = client.list_generations(limit=2), []
    threads = [threading.Thread(target=lambda: found.extend(entry.id for entry in history)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 6 == len(found) == len(set(found))


def test_history_keeps_its_client(neuralbox_server):
    """A history keeps its client open."""
    history = NeuralBox(neuralbox_server.api_key, base_url=neuralbox_server.base_url).list_generations()
    assert [] == list(history)

    history._owner.close()


def test_estimate(client, neuralbox_server):
    """The requests may come from a cursor, which is read in the thread that it belongs to."""
    database = sqlite3.connect(":memory:")
    database.row_factory = lambda _cursor, row: {"prompt": row[0], "key": str(row[1])}
    database.execute("create table prompts (prompt text, number integer)")
    database.executemany("insert into prompts values (?, ?)", [(f"Prompt {number}", number) for number in range(9)])
    estimate = client.estimate(database.execute("select prompt, number from prompts"), model="gpt-5")
    database.close()

    assert Estimate(requests=9, token_cost=18, max_token_cost=18, by_model={"gpt-5": 18}) == estimate
    assert ["/api/v2/models/gpt-5/calculate-price"] == [request.path for request in neuralbox_server.requests]


@pytest.mark.parametrize("name", ["get_balance", "list_models", "get_price", "list_generations", "estimate"])
def test_methods(name):
    """A method can be pickled, and its docstring is that of blocking code."""
    method = getattr(NeuralBox, name)

    assert method is pickle.loads(pickle.dumps(method))
    assert "async " not in method.__doc__
