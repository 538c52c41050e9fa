"""The life of a local server: how it starts and stops, who may use it, and what it leaves behind."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import itertools
import socket
import threading
import time

import anyio
import pytest

import neuralbox_async.testing
from neuralbox_async.testing import NeuralBoxServer

STREAM = {"model": "gpt-5", "prompt": "Hi", "stream": True}


def balance(server):
    """GET /balance in the plainest way, and return the status."""
    connection = http.client.HTTPConnection(server._host, server.port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/api/v2/balance", headers={"Authorization": f"Bearer {server.api_key}"})
        return connection.getresponse().status


def test_with_serves_blocking_code(thread_names):
    """In a with block the server answers blocking code of the same thread; after it there is no thread."""
    with NeuralBoxServer() as server:
        assert 200 == balance(server)
        assert {
            "api_key": server.api_key,
            "base_url": f"http://127.0.0.1:{server.port}/api/v2",
        } == server.client_options
        assert ["NeuralBoxServer"] == thread_names()
        assert server.is_running
    assert [] == thread_names()
    assert not server.is_running
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port))


async def test_async_with_leaves_the_loop_alone(session, thread_names):
    """An async with block lets the caller's loop run while the server starts and stops, and needs no other thread."""
    threads = threading.active_count()
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    async with NeuralBoxServer(reply=lambda _: str(time.sleep(0.1))) as server:
        started = turns
        head = {"Authorization": f"Bearer {server.api_key}"}
        async with session.get(f"{server.base_url}/balance", headers=head) as response:
            assert 200 == response.status
        # A reply that is still at work when the block is left makes the end take its time.
        body = {"model": "m", "prompt": ""}
        late = asyncio.create_task(session.post(f"{server.base_url}/generate", json=body, headers=head))
        await server.wait_until_async(lambda: server.in_flight == 1)
        before = turns
    assert started >= 1
    assert turns > before + 10
    counting.cancel()
    (await late).close()
    assert [] == thread_names()
    assert threads == threading.active_count()


def test_many_loops_and_threads_share_a_server(serve):
    """One server serves threads and event loops at the same time."""
    caller = serve()

    async def call():
        async with neuralbox_async.testing.NeuralBoxServer():
            await asyncio.to_thread(caller.post_message)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(asyncio.run, call()) for _ in range(4)]
        assert [200] * 20 == [caller.post_message().status for _ in range(20)]
        concurrent.futures.wait(calls)
    assert 24 == len(caller.server.billed) == len({billed.id for billed in caller.server.billed})


def test_start_and_close():
    """A server can be started and closed by hand, closed twice, and started again."""
    server = NeuralBoxServer()
    server.close()
    assert server is server.start()
    with pytest.raises(RuntimeError, match="is running"):
        server.start()
    assert 200 == balance(server)
    server.close()
    server.close()
    with server:
        assert 200 == balance(server)


async def test_async_exit_of_a_closed_server():
    """A server closed inside its async with block is simply left."""
    async with NeuralBoxServer() as server:
        server.close()
    await NeuralBoxServer().__aexit__(None, None, None)


@pytest.mark.parametrize("name", ["port", "base_url", "client_options"])
def test_no_address_before_the_start(name):
    """A server that was never started has no address."""
    server = NeuralBoxServer()
    with pytest.raises(RuntimeError, match="not started"):
        getattr(server, name)
    assert (0, 0) == (server.connections, server.connections_accepted)


async def test_a_port_in_use_is_an_error(serve, thread_names):
    """A port that cannot be had is an OSError, for blocking and async code, and leaves no thread."""
    port = serve().server.port
    with pytest.raises(OSError, match="in use"):
        NeuralBoxServer(port=port).start()
    with pytest.raises(OSError, match="in use"):
        async with NeuralBoxServer(port=port):
            pytest.fail("two servers on one port")  # pragma: no cover
    assert 1 == len(thread_names())


def test_ipv6_address():
    """An IPv6 address stands in brackets."""
    if not socket.has_ipv6:  # pragma: no cover
        pytest.skip("no IPv6")
    try:
        with NeuralBoxServer(host="::1") as server:
            assert server.base_url.startswith("http://[::1]:")
            assert 200 == balance(server)
    except OSError:  # pragma: no cover
        pytest.skip("no IPv6 on this machine")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dialect": "c"}, "dialect must be 'a' or 'b', not 'c'"),
        ({"status_paths": ["c"]}, "status_paths must contain only 'a' and 'b'"),
        ({"event_interval": -1}, "event_interval must be at least 0, not -1"),
        ({"latency": float("nan")}, "latency must be at least 0, not nan"),
        ({"heartbeat": 0}, "heartbeat must be greater than 0, not 0"),
        ({"history": 0}, "history must be greater than 0"),
        ({"limit_hour": -1}, "limit_hour must be at least 0"),
    ],
)
def test_options_are_checked(options, message):
    """An option out of its range is refused, with its name, its value and the rule."""
    with pytest.raises(ValueError, match=message):
        NeuralBoxServer(**options)


@pytest.mark.timing
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("blocking", [True, False])
async def test_closing_is_bounded_whatever_is_open(thread_names, blocking, stream, calling):
    """A server with streams, stalls, sleeping requests and idle connections closes at once and breaks them all."""
    server = NeuralBoxServer(latency=0 if stream else 60, event_interval=60).start()
    server.stall(0, 3)
    caller = calling(server)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(contextlib.closing(caller.send("POST", "/generate", {**STREAM, "stream": stream})))
        idle = stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", server.port))))
        server.wait_until(lambda: server.in_flight == 8 and server.connections == 9)
        started = time.monotonic()
        await (asyncio.to_thread(server.close) if blocking else server.__aexit__(None, None, None))
        assert time.monotonic() - started < 1.9
        with contextlib.suppress(ConnectionResetError):
            assert b"" == idle.recv(1)
    assert [] == thread_names()
    assert (0, 0) == (server.connections, server.in_flight)


def test_closing_under_fire(serve):
    """A server that is closed while connections come in leaves none, and no warning."""
    for _ in range(5):
        caller = serve()
        stop = threading.Event()

        def hammer(caller=caller, stop=stop):
            while not stop.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    caller.post_message()

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            fires = [pool.submit(hammer) for _ in range(4)]
            caller.server.wait_until(lambda caller=caller: len(caller.server.requests) > 20)
            caller.server.close()
            assert 0 == caller.server.connections
            stop.set()
            concurrent.futures.wait(fires)


def test_a_reply_that_blocks_is_left_behind_with_a_warning(thread_names, monkeypatch):
    """A reply that blocks the server's loop cannot hold up its closing indefinitely: a warning says so."""
    monkeypatch.setattr("neuralbox_async.testing._lifecycle._CLOSE_SECONDS", 0.1)
    go_on = threading.Event()
    server = NeuralBoxServer(reply=lambda _: str(go_on.wait(10))).start()
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as raw:
        body = b'{"model":"m","prompt":""}'
        raw.sendall(
            b"POST /api/v2/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (server.api_key.encode(), len(body), body)
        )
        server.wait_until(lambda: server.in_flight == 1)
        with pytest.warns(ResourceWarning, match="reply"):
            server.close()
        go_on.set()
        monkeypatch.undo()
        server.close()
    assert [] == thread_names()


def test_closing_from_within(serve):
    """A reply may close the server that asks it: it does not wait for itself."""
    servers = []
    caller = serve(reply=lambda _: str(servers[0].close()))
    servers.append(caller.server)
    with contextlib.suppress(OSError):
        caller.post_message()
    caller.server.wait_until(lambda: not caller.server.is_running)


def test_an_interrupted_start_leaves_nothing(monkeypatch, thread_names):
    """Ctrl-C during the start ends the thread that was just begun."""

    def interrupt(_):
        raise KeyboardInterrupt

    server = NeuralBoxServer()
    monkeypatch.setattr(server, "_has_started", interrupt.__get__(server))
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert [] == thread_names()


async def test_a_cancelled_start_leaves_nothing(thread_names):
    """A cancellation during the async start ends the thread that was just begun."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with NeuralBoxServer():
            pytest.fail("entered although cancelled")  # pragma: no cover
    assert scope.cancelled_caught
    assert [] == thread_names()


async def test_a_cancelled_exit_still_closes(thread_names):
    """A server is closed although the scope around it was cancelled."""
    with anyio.CancelScope() as scope:
        async with NeuralBoxServer():
            scope.cancel()
            await anyio.sleep(1)
    assert [] == thread_names()


def test_connections_are_counted(caller):
    """The server counts connections open now and accepted so far."""
    with contextlib.closing(caller.send("GET", "/balance")) as connection:
        connection.getresponse().read()
        caller.get("/balance")
        caller.server.wait_until(lambda: caller.server.connections == 1)
        assert 2 == caller.server.connections_accepted
    caller.server.wait_until(lambda: caller.server.connections == 0)


def test_requests_in_flight_are_counted(serve):
    """The server counts requests being served, and the most there were at a time."""
    caller = serve(latency=0.05)
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        list(pool.map(caller.post_message, "abcde"))
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert 2 <= caller.server.peak_in_flight <= 5
    caller.server.reset()
    assert 0 == caller.server.peak_in_flight


def test_idle_connections_are_closed_in_time(serve):
    """An idle connection is closed after the time that is configured."""
    caller = serve(keepalive_timeout=0.05)
    with contextlib.closing(caller.send("GET", "/balance")) as connection:
        connection.getresponse().read()
        assert b"" == connection.sock.recv(1)


async def test_waiting_has_an_end(caller):
    """Waiting for what does not happen ends with a TimeoutError."""
    with pytest.raises(TimeoutError):
        caller.server.wait_for_disconnect(0.01)
    with pytest.raises(TimeoutError):
        await caller.server.wait_for_disconnect_async(0.01)


def test_endless_replies_do_not_outlive_the_server(serve):
    """An endless stream ends with the server."""
    caller = serve(reply=lambda _: itertools.repeat("x" * 1000))
    with contextlib.closing(caller.send("POST", "/generate", STREAM)) as connection:
        connection.getresponse().read(1000)
        caller.server.close()
    assert () == caller.server.billed
