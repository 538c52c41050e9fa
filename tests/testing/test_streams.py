"""Streams of server-sent events, and disconnects of their readers."""

import contextlib
import itertools
import time

import pytest


def deltas(events):
    """Join the text of the content events."""
    return "".join(event["delta"] for event in events if event != "[DONE]" and event["type"] == "content_delta")


def test_stream_in_dialect_a(caller):
    """A stream is a start, the tokens of the text, an end with the bill, and the literal [DONE]."""
    response = caller.post_message("Hello", stream=True)

    assert "text/event-stream" == response.headers["Content-Type"]
    assert [
        {"type": "generation_start", "id": "gen_01j9x00018473", "model": "gpt-5"},
        {"type": "content_delta", "delta": "You "},
        {"type": "content_delta", "delta": "said: "},
        {"type": "content_delta", "delta": "Hello"},
        {"type": "generation_end", "id": "gen_01j9x00018473", "tokens_used": 2, "balance_remaining": 999_998},
        "[DONE]",
    ] == response.events
    assert [b"data: "] * 6 == [frame[:6] for frame in response.body.split(b"\n\n")[:-1]]


@pytest.mark.parametrize(
    "body",
    [{"model": "gpt-5", "prompt": "Hello"}, {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]}],
)
def test_stream_in_dialect_b(caller, body):
    """The endpoint that only dialect B documents streams without a flag, with integer ids and tokens_spent."""
    events = caller.post(body, "/generate/stream").events
    assert {"type": "generation_start", "id": 18473, "model": "gpt-5"} == events[0]
    assert [{"type": "generation_end", "id": 18473, "tokens_spent": 2}, "[DONE]"] == events[-2:]
    assert "You said: Hello" == deltas(events)


def test_the_header_chooses_the_dialect(caller):
    """The header selects the dialect of streams too."""
    assert 18473 == caller.post_message(stream=True, headers={"X_NeuralBox_Dialect": "b"}).events[0]["id"]
    end = caller.post_message(path="/generate/stream", headers={"X_NeuralBox_Dialect": "a"}).events[-2]
    assert "balance_remaining" in end


@pytest.mark.parametrize("text", ["Grüße \u2028\u2029\u0085 \U0001f600\r\n\r\n data: x\n\n", "\ud83d half"])
def test_any_text_is_streamed(caller, text):
    """Text with line separators, blank lines or half a surrogate pair is streamed unchanged."""
    assert f"You said: {text}" == deltas(caller.post_message(text, stream=True).events)


def test_a_long_stream_is_fast_and_complete(caller):
    """A text of 60,000 words arrives complete, in well under a second for the server."""
    text = " ".join(map(str, range(60_000)))
    response = caller.post_message(text, stream=True)
    assert f"You said: {text}" == deltas(response.events)
    assert 1 == len(caller.server.billed)


def test_invalid_streams_get_an_error_status(serve):
    """The response to an invalid stream request is an HTTP status, not an event."""
    assert 402 == serve(balance=0).post_message(stream=True).status
    assert 422 == serve().post_message(stream=True, temperature=3).status


def test_pending_models_stream_immediately(serve):
    """A stream is never pending."""
    assert "[DONE]" == serve(pending_models=["gpt-5"]).post_message(stream=True).events[-1]


def test_event_interval_separates_the_events(serve):
    """With an event interval, each event is sent alone, one interval after the previous event."""
    caller = serve(event_interval=0.02, reply="one two three")
    started = time.monotonic()
    with contextlib.closing(caller.send("POST", "/generate", {"model": "m", "prompt": "", "stream": True})) as stream:
        response = stream.getresponse()
        first = response.read1()
        assert first.count(b"\n\n") == 1
        assert () == caller.server.billed
        rest = response.read()
    assert 5 == rest.count(b"\n\n")
    assert time.monotonic() - started >= 4 * 0.02
    assert 1 == len(caller.server.billed)


def test_latency_precedes_the_headers(serve):
    """The latency of a stream is the time to its first byte."""
    caller = serve(latency=0.05)
    started = time.monotonic()
    assert "[DONE]" == caller.post_message(stream=True).events[-1]
    assert time.monotonic() - started >= 0.05


def test_heartbeats_while_idle(serve):
    """While a stream is idle, comment lines are sent at the heartbeat interval."""
    caller = serve(event_interval=0.05, heartbeat=0.02, reply="one")
    response = caller.post_message(stream=True)
    assert 2 * 3 == response.body.count(b": ping\n\n")
    assert "one" == deltas(response.events)


async def test_disconnect_stops_the_generation(serve, session):
    """A disconnect stops a stream immediately. It is not billed, and the status endpoints report it as failed."""
    caller = serve(reply=lambda _: itertools.repeat("word "), event_interval=0.005)
    server = caller.server
    body = {"model": "gpt-5", "prompt": "", "stream": True}
    head = {"Authorization": f"Bearer {server.api_key}"}
    async with session.post(f"{server.base_url}/generate", json=body, headers=head) as response:
        async for line in response.content:
            if b"word" in line:
                break
    (received,) = await server.wait_for_disconnect_async()

    assert 200 == received.response_status
    await server.wait_until_async(lambda: server.in_flight == 0 and server.connections == 0)
    assert () == server.billed
    assert 1_000_000 == server.balance
    assert "failed" == caller.get("/generate/18473").json["status"]


def test_an_endless_stream_waits_for_its_reader(serve):
    """A stream without an event interval is no faster than its reader, and ends when the reader disconnects."""
    generated = 0

    def reply(_):
        nonlocal generated
        while True:
            generated += 1
            yield "x" * 1000

    caller = serve(reply=reply)
    with contextlib.closing(caller.send("POST", "/generate", {"model": "m", "prompt": "", "stream": True})) as stream:
        response = stream.getresponse()
        response.read(10_000)
        caller.server.wait_until(lambda: _is_constant(lambda: generated))
        # The size of two socket buffers, not a gigabyte.
        assert generated < 20_000
        assert 200 == caller.get("/balance").status
        # Closing only the connection leaves the file of the response open.
        response.close()
    (received,) = caller.server.wait_for_disconnect()
    assert received.disconnected
    assert () == caller.server.billed


def _is_constant(number):
    before = number()
    time.sleep(0.02)
    return before == number()


def test_an_endless_stream_with_a_fast_reader_ends_too(serve):
    """The server detects the disconnect of a reader that is as fast as the stream."""
    caller = serve(reply=lambda _: itertools.repeat("x" * 1000))
    with contextlib.closing(caller.send("POST", "/generate", {"model": "m", "prompt": "", "stream": True})) as stream:
        response = stream.getresponse()
        for _ in range(500):
            response.read1()
        response.close()
    caller.server.wait_for_disconnect()
    caller.server.wait_until(lambda: caller.server.in_flight == 0)


def test_a_reply_that_raises_ends_in_an_error_event(serve, caplog):
    """A reply that raises during a stream ends it with an error event. It is logged and not billed."""

    def reply(_):
        yield "one "
        raise ValueError("no more")

    caller = serve(reply=reply)
    events = caller.post_message(stream=True).events
    assert ["generation_start", "content_delta", "error"] == [event["type"] for event in events]
    assert "ValueError('no more')" == events[-1]["message"]
    assert () == caller.server.billed
    assert "no more" in caplog.text


def test_http_1_0_gets_a_stream_too(caller):
    """A client without chunked encoding reads until the connection closes."""
    with contextlib.closing(caller.send("GET", "/balance")) as connection:
        connection.getresponse().read()
        body = b'{"model": "m", "prompt": "Hi"}'
        connection.sock.sendall(
            b"POST /api/v2/generate/stream HTTP/1.0\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (caller.server.api_key.encode(), len(body), body)
        )
        read = b""
        while chunk := connection.sock.recv(65536):
            read += chunk
    assert b"chunked" not in read
    assert read.endswith(b"data: [DONE]\n\n")
