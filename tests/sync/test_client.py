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


def reply_to(text):
    """Return the content of the local server's response to *text*."""
    return f"You said: {text}"


def test_generate(client, neuralbox_server):
    """A blocking call returns the generation and is billed once."""
    assert reply_to("Hi") == client.generate("gpt-5", "Hi", system="Be brief.").content
    assert 1 == len(neuralbox_server.billed)


@pytest.mark.neuralbox_server(pending_models=["slow"], pending_seconds=1)
def test_retrieve_and_wait(client):
    """A pending generation can be retrieved and waited for."""
    pending = client.generate("slow", "Hi")

    assert "pending" == client.retrieve(pending).status
    assert reply_to("Hi") == client.wait(pending, poll_interval=0.05).content


def test_errors(client, neuralbox_server):
    """Errors are those of `neuralbox_async`, raised in the thread of the call, with few frames of the facade."""
    neuralbox_server.fail(429, retry_after=847)

    with pytest.raises(RateLimitError) as caught:
        client.generate("gpt-5", "Hi")

    assert 847 == caught.value.retry_after
    facade = [frame for frame in traceback.extract_tb(caught.tb) if "neuralbox_sync" in frame.filename]
    assert len(facade) <= 3


def test_timeout_from_a_thread(client, neuralbox_server):
    """The timeout of a call holds in any thread."""
    neuralbox_server.delay(30)

    with ThreadPoolExecutor(1) as pool, pytest.raises(APITimeoutError):
        pool.submit(client.generate, "gpt-5", "Hi", timeout=0.05).result()


def test_threads(client, neuralbox_server):
    """64 threads share a client, and each gets the replies to its own requests."""
    texts = [f"text {number}" for number in range(640)]

    with ThreadPoolExecutor(64) as pool:
        contents = list(pool.map(lambda text: client.generate("gpt-5", text).content, texts))

    assert [reply_to(text) for text in texts] == contents
    assert 640 == len(neuralbox_server.billed)


def test_failure_in_one_thread(client, neuralbox_server):
    """A failure reaches the thread of its call only, even SystemExit from a function of the user."""

    def exit_():
        raise SystemExit

    neuralbox_server.delay(0.1)
    failing = client.with_options(api_key=exit_)
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(client.generate, "gpt-5", "Hi")
        with pytest.raises(SystemExit):
            failing.generate("gpt-5", "Hi")

        assert reply_to("Hi") == reply.result().content


async def test_inside_a_running_loop(client):
    """A call works inside a running loop, as in a notebook or an async view."""
    assert reply_to("Hi") == client.generate("gpt-5", "Hi").content
    assert reply_to("Hi") == (await asyncio.to_thread(client.generate, "gpt-5", "Hi")).content


def test_call_on_the_own_loop(neuralbox_server):
    """A call from a function that the client calls on its own loop raises, with advice."""

    async def key():
        return client.generate("gpt-5", "?").content

    client = NeuralBox(base_url=neuralbox_server.base_url, api_key=key)
    with client, pytest.raises(RuntimeError, match="await there"):
        client.generate("gpt-5", "Hi")


def test_with_options(client, neuralbox_server):
    """A derived client shares the loop and the connections, and is closed with its parent."""
    derived = client.with_options(timeout=5)
    assert isinstance(derived, NeuralBox)

    client.generate("gpt-5", "Hi")
    derived.generate("gpt-5", "Hi")

    assert 1 == neuralbox_server.connections_accepted
    client.close()
    assert derived.closed
    with pytest.raises(ClientClosedError):
        derived.generate("gpt-5", "Hi")


def test_client_derived_from_a_temporary(neuralbox_server):
    """A derived client keeps its parent alive."""
    derived = NeuralBox(**neuralbox_server.client_options).with_options(timeout=5)
    gc.collect()

    assert reply_to("Hi") == derived.generate("gpt-5", "Hi").content
    derived._owner.close()  # closing the derived client would leave the connections open


def test_close(client, neuralbox_server):
    """Closing closes the connections and is idempotent; later calls raise."""
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


@pytest.mark.timing
def test_close_during_calls(client, neuralbox_server):
    """Closing ends running calls with an error whose billing status is unknown."""
    neuralbox_server.delay(30, times=8)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.generate, "gpt-5", "Hi") for _ in range(8)]
        neuralbox_server.wait_until(lambda: neuralbox_server.in_flight == 8)
        started = time.monotonic()
        client.close()
        errors = [call.exception() for call in calls]

    assert [(ClientClosedError, "unknown")] * 8 == [(type(error), error.billed) for error in errors]
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("used", [False, True])
def test_garbage_collected(neuralbox_server, loop_threads, used):
    """A client that is collected unclosed frees its thread and connections, and warns once if it had any."""
    client = NeuralBox(**neuralbox_server.client_options)
    if used:
        client.generate("gpt-5", "Hi")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client
        gc.collect()
        neuralbox_server.wait_until(lambda: not loop_threads() and neuralbox_server.connections == 0)

    assert [ResourceWarning] * used == [warning.category for warning in caught]


@pytest.mark.parametrize("error", ["ImportError", "ZeroDivisionError"])
def test_broken_import(start, error):
    """Each call raises the import's error when a module that it needs cannot be loaded."""
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
    result = script.end()

    assert (0, ["broken", "broken"], "") == (result.status, result.lines, result.errors)


def test_many_garbage_collected(neuralbox_server, loop_threads):
    """Twenty clients that are collected unclosed leave no thread and no file descriptor."""
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
    """A client cannot be pickled or deep-copied: it holds a key and connections."""
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="in each process"):
            attempt(client)


def test_key_is_not_shown(neuralbox_server):
    """The key is in no `repr`, and in no frame that the facade adds to a traceback."""
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
            # An object whose constructor failed has no `repr`.
            values = [value for frame in frames for name, value in frame.f_locals.items() if name != "self"]
            assert not [value for value in values if SECRET in repr(value)]


def test_close_while_threads_call(neuralbox_server):
    """Each call that runs while another thread closes the client succeeds or raises `ClientClosedError`."""
    for _ in range(10):
        client = NeuralBox(**neuralbox_server.client_options)
        client.generate("gpt-5", "Hi")
        outcomes = []

        def call(client=client, outcomes=outcomes):
            try:
                while True:
                    client.generate("gpt-5", "Hi")
            except Exception as error:  # noqa: BLE001 - the test checks its type
                outcomes.append(type(error))

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        client.close()
        for thread in threads:
            thread.join()
        assert [ClientClosedError] * 8 == outcomes
