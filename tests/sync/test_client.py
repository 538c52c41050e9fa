"""`NeuralBox` against a local server: many threads, running loops, errors, closing."""

import asyncio
import copy
import gc
import pickle
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from neuralbox_sync import (
    APITimeoutError,
    AuthenticationError,
    ClientClosedError,
    InvalidParameterError,
    NeuralBox,
    RateLimitError,
)

SECRET = "nb_canary_key_that_must_not_be_seen_7f3a"


def said(text):
    """Return what the local server answers to *text*."""
    return f"You said: {text}"


def test_generate(client, neuralbox_server):
    """A blocking call returns the generation, and is billed once."""
    assert said("Hi") == client.generate("gpt-5", "Hi", system="Be brief.").content
    assert 1 == len(neuralbox_server.billed)


@pytest.mark.neuralbox_server(pending_models=["slow"], pending_seconds=0.05)
def test_retrieve_and_wait(client):
    """A pending generation can be asked for and waited for."""
    pending = client.generate("slow", "Hi")

    assert "pending" == client.retrieve(pending).status
    assert said("Hi") == client.wait(pending, poll_interval=0.05).content


def test_errors(client, neuralbox_server):
    """Errors are the asynchronous side's own, raised where the call is."""
    neuralbox_server.fail(429, retry_after=847)

    with pytest.raises(RateLimitError) as caught:
        client.generate("gpt-5", "Hi")

    assert 847 == caught.value.retry_after
    facade = [frame for frame in traceback.extract_tb(caught.tb) if "neuralbox_sync" in frame.filename]
    assert len(facade) <= 3


def test_timeout_from_a_thread(client, neuralbox_server):
    """The time limit of a call holds in any thread."""
    neuralbox_server.delay(30)

    with ThreadPoolExecutor(1) as pool, pytest.raises(APITimeoutError):
        pool.submit(client.generate, "gpt-5", "Hi", timeout=0.05).result()


def test_threads(client, neuralbox_server):
    """64 threads share a client, and each gets the answers to its own questions."""
    texts = [f"question {number}" for number in range(640)]

    with ThreadPoolExecutor(64) as pool:
        replies = list(pool.map(lambda text: client.generate("gpt-5", text).content, texts))

    assert [said(text) for text in texts] == replies
    assert 640 == len(neuralbox_server.billed)


def test_a_thread_that_fails_harms_nobody(client, neuralbox_server):
    """One thread's failure is no matter of the others, not even SystemExit from a function that the user supplied."""

    def leave():
        raise SystemExit

    neuralbox_server.delay(0.1)
    leaving = client.with_options(api_key=leave)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.generate, "gpt-5", "Hi")
        with pytest.raises(SystemExit):
            leaving.generate("gpt-5", "Hi")

        assert said("Hi") == reply.result().content


async def test_inside_a_running_loop(client):
    """A call inside a running loop works, as in a notebook or an async view."""
    assert said("Hi") == client.generate("gpt-5", "Hi").content
    assert said("Hi") == (await asyncio.to_thread(client.generate, "gpt-5", "Hi")).content


def test_call_on_the_own_loop(neuralbox_server):
    """A call from a function that the client itself calls on its loop is refused, with what to do instead."""
    client = NeuralBox(base_url=neuralbox_server.base_url, api_key=lambda: client.generate("gpt-5", "?").content)

    with client, pytest.raises(RuntimeError, match="await there"):
        client.generate("gpt-5", "Hi")


def test_with_options(client, neuralbox_server):
    """A derived client shares the loop and the connections, and is closed with the client that it comes from."""
    derived = client.with_options(timeout=5)
    assert isinstance(derived, NeuralBox)

    client.generate("gpt-5", "Hi")
    derived.generate("gpt-5", "Hi")

    assert 1 == neuralbox_server.connections_accepted
    client.close()
    assert derived.closed
    with pytest.raises(ClientClosedError):
        derived.generate("gpt-5", "Hi")


def test_derived_from_a_temporary(neuralbox_server):
    """A derived client keeps alive what it was derived from."""
    derived = NeuralBox(**neuralbox_server.client_options).with_options(timeout=5)
    gc.collect()

    with derived:
        assert said("Hi") == derived.generate("gpt-5", "Hi").content


def test_close(client, neuralbox_server):
    """Closing closes the connections, can be repeated, and is told to later callers."""
    client.generate("gpt-5", "Hi")
    assert not client.closed

    client.close()
    client.close()

    assert client.closed
    neuralbox_server.wait_until(lambda: neuralbox_server.connections == 0)
    for call in (client.generate, client.stream("gpt-5", "Hi").__enter__):
        with pytest.raises(ClientClosedError) as caught:
            call(*(("gpt-5", "Hi") if call == client.generate else ()))
        assert "no" == caught.value.billed


def test_close_during_calls(client, neuralbox_server):
    """Closing ends calls under way with an error that does not promise that they were free."""
    neuralbox_server.delay(30, times=8)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.generate, "gpt-5", "Hi") for _ in range(8)]
        neuralbox_server.wait_until(lambda: neuralbox_server.in_flight == 8)
        began = time.monotonic()
        client.close()
        errors = [call.exception() for call in calls]

    assert [(ClientClosedError, "unknown")] * 8 == [(type(error), error.billed) for error in errors]
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("used", [False, True])
def test_dropped(neuralbox_server, loop_threads, used):
    """A client dropped unclosed frees its thread and connections, and warns once if it had any."""
    client = NeuralBox(**neuralbox_server.client_options)
    if used:
        client.generate("gpt-5", "Hi")

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del client
        gc.collect()
        neuralbox_server.wait_until(lambda: not loop_threads() and neuralbox_server.connections == 0)

    assert [ResourceWarning] * used == [warning.category for warning in warned]


@pytest.mark.parametrize("error", ["ImportError", "ZeroDivisionError"])
def test_what_cannot_be_imported(start, error):
    """When a module that calls need cannot be loaded, each call says so, instead of waiting."""
    script = start(f"""
        import sys
        from neuralbox_sync import NeuralBox

        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name == "aiohttp":
                    raise {error}("broken")

        sys.meta_path.insert(0, Broken())
        with NeuralBox() as client:
            for _ in range(2):
                try:
                    client.generate("gpt-5", "Hi")
                except {error} as error:
                    print(error)
    """)
    ended = script.end()

    assert (0, ["broken", "broken"], "") == (ended.status, ended.lines, ended.errors)


def test_many_dropped(neuralbox_server, loop_threads):
    """Twenty clients dropped unclosed leave no thread and no descriptor behind."""
    psutil = pytest.importorskip("psutil")
    NeuralBox(**neuralbox_server.client_options).close()
    before = psutil.Process().num_fds()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(20):
            NeuralBox(**neuralbox_server.client_options).generate("gpt-5", "Hi")
        gc.collect()
        neuralbox_server.wait_until(lambda: not loop_threads() and neuralbox_server.connections == 0)

    neuralbox_server.wait_until(lambda: psutil.Process().num_fds() <= before)


def test_no_copies(client):
    """A client cannot be pickled, nor copied deeply: it holds a key and connections."""
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="in each process"):
            attempt(client)


def test_the_key_is_nowhere(neuralbox_server):
    """The key is in no representation, and in no frame that the facade adds to a traceback."""
    client = NeuralBox(SECRET, base_url=neuralbox_server.base_url)
    assert SECRET not in repr(client)
    assert neuralbox_server.base_url in repr(client)

    attempts = [
        (AuthenticationError, lambda: client.generate("gpt-5", "Hi")),
        (InvalidParameterError, lambda: NeuralBox(api_key=SECRET, timeout=-1)),
        (InvalidParameterError, lambda: client.with_options(api_key=SECRET, timeout=-1)),
    ]
    with client:
        for kind, attempt in attempts:
            with pytest.raises(kind) as caught:
                attempt()
            frames = [
                frame for frame, _ in traceback.walk_tb(caught.tb) if "neuralbox_sync" in frame.f_code.co_filename
            ]
            assert frames
            # Of an object whose constructor failed there is not even a representation.
            values = [value for frame in frames for name, value in frame.f_locals.items() if name != "self"]
            assert not [value for value in values if SECRET in repr(value)]


def test_close_in_a_thread_while_calls_go_on(neuralbox_server):
    """However a close falls between calls, each of these succeeds or raises `ClientClosedError`."""
    for _ in range(10):
        client = NeuralBox(**neuralbox_server.client_options)
        client.generate("gpt-5", "Hi")
        outcomes = []

        def call(client=client, outcomes=outcomes):
            try:
                while True:
                    client.generate("gpt-5", "Hi")
            except Exception as error:  # noqa: BLE001 - which one is the question
                outcomes.append(type(error))

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        client.close()
        for thread in threads:
            thread.join()
        assert [ClientClosedError] * 8 == outcomes
