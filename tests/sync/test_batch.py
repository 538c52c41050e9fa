"""`Batch` against a local server: many concurrent generations, from blocking code."""

import threading

import pytest

from neuralbox_sync import BatchStateError, InvalidParameterError

TEXTS = [f"text {number}" for number in range(50)]


def test_results(client, neuralbox_server):
    """A batch yields every result and has a report."""
    with client.generate_many(TEXTS, model="gpt-5", max_concurrency=8, ordered=True) as results:
        contents = [result.generation.content for result in results]

    assert [f"You said: {text}" for text in TEXTS] == contents
    assert len(TEXTS) == results.progress.completed == len(neuralbox_server.billed)
    assert results.report is not None
    assert neuralbox_server.peak_in_flight <= 8


def test_leaving_early(client, neuralbox_server):
    """Leaving the block cancels the requests in flight and sends no more."""
    neuralbox_server.delay(30, times=len(TEXTS))
    neuralbox_server.delay(0)

    with client.generate_many(TEXTS, model="gpt-5", max_concurrency=4):
        neuralbox_server.wait_until(lambda: neuralbox_server.in_flight == 4)

    assert 4 == len(neuralbox_server.wait_for_disconnect(count=4))
    assert 4 == len(neuralbox_server.requests)


def test_stop(client):
    """A batch that any thread stops finishes the requests in flight."""
    with client.generate_many(({"prompt": text} for text in TEXTS * 100), model="gpt-5", max_concurrency=2) as results:
        next(results)
        stopper = threading.Thread(target=results.stop)
        stopper.start()
        stopper.join()
        rest = list(results)

    assert len(rest) < 1000


def test_invalid_parameter(client):
    """An invalid parameter raises at once."""
    with pytest.raises(InvalidParameterError):
        client.generate_many(TEXTS, model="gpt-5", max_concurrency=0)


def test_not_entered(client):
    """A batch that was not entered cannot be read."""
    with pytest.raises(BatchStateError):
        next(client.generate_many(TEXTS, model="gpt-5"))
