"""One client in many threads, with servers in other processes and threads."""

import contextlib
import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from neuralbox_sync import APITimeoutError, NeuralBox

THREADS, EACH = 64, 157


@pytest.fixture
def client(neuralbox_server):
    with NeuralBox(**neuralbox_server.client_options) as client:
        yield client


def test_ten_thousand_calls(neuralbox_server, launch):
    """Each of 10,000 calls in 64 threads gets its own reply."""
    server = launch(neuralbox_server, "fast_server.py")
    port = server.line()
    assert port, server.end()
    url = f"http://127.0.0.1:{port}"

    def call(thread):
        prompts = [f"{thread}.{number}" for number in range(EACH)]
        return prompts == [client.generate("gpt-5", prompt, timeout=30).content for prompt in prompts]

    with NeuralBox("nb_test", base_url=url) as client, ThreadPoolExecutor(THREADS) as pool:
        assert [True] * THREADS == list(pool.map(call, range(THREADS)))
    assert 10_000 <= THREADS * EACH


@pytest.mark.neuralbox_server(stop_on_disconnect=True)
def test_interrupted_thread(client, neuralbox_server):
    """An exception raised in the call of one thread cancels that call, on the server as well, and no other."""

    class InterruptionError(Exception):
        pass

    outcomes = []

    def call():
        with contextlib.suppress(InterruptionError):
            outcomes.append(client.generate("gpt-5", "interrupted"))

    neuralbox_server.delay(30)
    thread = threading.Thread(target=call)
    thread.start()
    neuralbox_server.wait_until(lambda: neuralbox_server.in_flight == 1)
    with ThreadPoolExecutor(4) as pool:
        neuralbox_server.delay(0.2, times=4)
        others = [pool.submit(client.generate, "gpt-5", str(number)) for number in range(4)]
        neuralbox_server.wait_until(lambda: neuralbox_server.in_flight == 5)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(InterruptionError))

        assert [f"You said: {number}" for number in range(4)] == [other.result().content for other in others]
    thread.join()

    assert [] == outcomes
    assert 1 == len(neuralbox_server.wait_for_disconnect())
    assert "You said: next" == client.generate("gpt-5", "next").content


def test_timeouts_of_many_threads(client, neuralbox_server):
    """Each call has its own timeout: some time out, and the others complete."""
    client.generate("gpt-5", "warm up")
    neuralbox_server.delay(1.5, times=16)

    def call(number):
        try:
            return client.generate("gpt-5", "Hi", timeout=0.3 if number % 2 else 30).content
        except APITimeoutError:
            return "timed out"

    with ThreadPoolExecutor(16) as pool:
        assert ["You said: Hi", "timed out"] * 8 == list(pool.map(call, range(16)))


def test_stream_of_a_thread_that_has_ended(client, neuralbox_server):
    """A stream that a thread opened can be read after that thread has ended."""
    streams = []
    opener = threading.Thread(target=lambda: streams.append(client.stream("gpt-5", "one two").__enter__()))
    opener.start()
    opener.join()

    with contextlib.closing(streams.pop()) as stream:
        assert "You said: one two" == "".join(stream.text_stream)


def test_concurrent_streams(client):
    """Streams that are read at the same time in many threads do not mix."""
    prompts = [" ".join([f"word{number}"] * 20) for number in range(32)]

    def read(prompt):
        with client.stream("gpt-5", prompt) as stream:
            return "".join(stream.text_stream)

    with ThreadPoolExecutor(32) as pool:
        assert [f"You said: {prompt}" for prompt in prompts] == list(pool.map(read, prompts))


def test_close_during_calls_and_streams(client, neuralbox_server):
    """Closing in one thread soon ends the calls and streams of all other threads."""
    neuralbox_server.delay(30, times=4, stream=False)
    neuralbox_server.stall(1, times=4)

    def read(_):
        with client.stream("gpt-5", "Hi") as stream:
            return list(stream)

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(client.generate, "gpt-5", "Hi") for _ in range(4)]
        futures += [pool.submit(read, None) for _ in range(4)]
        neuralbox_server.wait_until(lambda: neuralbox_server.in_flight == 8)
        client.close()
        errors = {type(future.exception()).__name__ for future in futures}

    assert {"ClientClosedError"} == errors
    neuralbox_server.wait_until(lambda: neuralbox_server.connections == 0)
