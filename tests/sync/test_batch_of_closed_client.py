"""Results of a blocking batch whose client was closed before they were read: they are paid for, and not lost."""

import functools
import threading
import time

import pytest

from neuralbox_sync import ClientClosedError, NeuralBox

COUNT = 20


@pytest.mark.parametrize("is_list", [True, False], ids=["a list", "an iterator"])
@pytest.mark.parametrize("ordered", [False, True])
def test_results_that_had_arrived(neuralbox_server, is_list, ordered):
    """They can still be read, each once; then the client is closed, at each further read."""
    prompts = [f"text {number}" for number in range(COUNT)]
    rest = prompts.copy()
    items = prompts if is_list else iter(functools.partial(_next_of, rest), None)
    client = NeuralBox(**neuralbox_server.client_options)
    options = {"model": "gpt-5", "max_concurrency": COUNT, "ordered": ordered}
    with client.generate_many(items, **options) as results:
        read = [next(results)]
        while rest and not is_list:  # a first result that arrives early ends the reading of the iterator
            read.append(next(results))
        while results.progress.completed < COUNT:
            time.sleep(0.01)
        closing = threading.Thread(target=client.close)
        closing.start()
        closing.join()
        with pytest.raises(ClientClosedError):
            read.extend(iter(results))
        with pytest.raises(ClientClosedError):
            next(results)

    contents = [result.generation.content for result in read]
    assert [f"You said: {prompt}" for prompt in prompts] == (contents if ordered else sorted(contents, key=_number))
    assert COUNT == results.report.completed == len(neuralbox_server.billed)


def test_closing_while_several_threads_read(neuralbox_server):
    """Each result that was completed is read by one of them."""
    client = NeuralBox(**neuralbox_server.client_options)
    read = []

    def read_all():
        with pytest.raises(ClientClosedError):
            read.extend(iter(results))

    def endless():
        for number in range(10**6):
            time.sleep(0.001)
            yield {"prompt": f"text {number}", "key": number}

    with client.generate_many(endless(), model="gpt-5", max_concurrency=8) as results:
        threads = [threading.Thread(target=read_all) for _ in range(3)]
        for thread in threads:
            thread.start()
        while results.progress.completed < COUNT:
            time.sleep(0.01)
        client.close()
        for thread in threads:
            thread.join(30)

    completed = [result.key for result in read if result.generation is not None]
    assert results.report.completed == len(completed) == len(set(completed))


def _next_of(rest):
    return rest.pop(0) if rest else None


def _number(content):
    return int(content.rpartition(" ")[2])
