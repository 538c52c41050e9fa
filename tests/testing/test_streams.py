"""Streams of server-sent events, and what happens when their readers leave."""

import contextlib
import itertools
import time

import pytest


def deltas(events):
    """Join the text of the content events."""
    return "".join(event["delta"] for event in events if event != "[DONE]" and event["type"] == "content_delta")


def test_stream_in_dialect_a(caller):
    """A stream is a start, the pieces of the text, an end that tells the bill, and the literal [DONE]."""
    answer = caller.say("Hello", stream=True)

    assert "text/event-stream" == answer.headers["Content-Type"]
    assert [
        {"type": "generation_start", "id": "gen_01j9x00018473", "model": "gpt-5"},
        {"type": "content_delta", "delta": "You "},
        {"type": "content_delta", "delta": "said: "},
        {"type": "content_delta", "delta": "Hello"},
        {"type": "generation_end", "id": "gen_01j9x00018473", "tokens_used": 2, "balance_remaining": 999_998},
        "[DONE]",
    ] == answer.events
    assert [b"data: "] * 6 == [frame[:6] for frame in answer.body.split(b"\n\n")[:-1]]


@pytest.mark.parametrize(
    "body",
    [{"model": "gpt-5", "prompt": "Hello"}, {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]}],
)
def test_stream_in_dialect_b(caller, body):
    """The path that only dialect B documents streams without a flag, with integer ids and tokens_spent."""
    events = caller.post(body, "/generate/stream").events
    assert {"type": "generation_start", "id": 18473, "model": "gpt-5"} == events[0]
    assert [{"type": "generation_end", "id": 18473, "tokens_spent": 2}, "[DONE]"] == events[-2:]
    assert "You said: Hello" == deltas(events)


def test_the_header_chooses_the_dialect(caller):
    """The header decides about streams too."""
    assert 18473 == caller.say(stream=True, headers={"X_NeuralBox_Dialect": "b"}).events[0]["id"]
    end = caller.say(path="/generate/stream", headers={"X_NeuralBox_Dialect": "a"}).events[-2]
    assert "balance_remaining" in end


@pytest.mark.parametrize("text", ["Grüße \u2028\u2029\u0085 \U0001f600\r\n\r\n data: x\n\n", "\ud83d half"])
def test_any_text_is_streamed(caller, text):
    """Text with line separators, blank lines or half a surrogate pair comes whole."""
    assert f"You said: {text}" == deltas(caller.say(text, stream=True).events)


def test_a_long_stream_is_fast_and_whole(caller):
    """A text of 60,000 words arrives whole, in well under a second for the server."""
    text = " ".join(map(str, range(60_000)))
    answer = caller.say(text, stream=True)
    assert f"You said: {text}" == deltas(answer.events)
    assert 1 == len(caller.server.billed)


def test_streams_are_refused_before_their_head(serve):
    """What is wrong with a request is an HTTP status, not an event."""
    assert 402 == serve(balance=0).say(stream=True).status
    assert 422 == serve().say(stream=True, temperature=3).status


def test_pending_models_stream_at_once(serve):
    """A stream is never pending."""
    assert "[DONE]" == serve(pending_models=["gpt-5"]).say(stream=True).events[-1]


def test_pace_spreads_the_events(serve):
    """With a pace, each event comes by itself, a pace after the one before."""
    caller = serve(pace=0.02, reply="one two three")
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


def test_latency_comes_before_the_head(serve):
    """A stream's latency is the time to its first byte."""
    caller = serve(latency=0.05)
    started = time.monotonic()
    assert "[DONE]" == caller.say(stream=True).events[-1]
    assert time.monotonic() - started >= 0.05


def test_heartbeats_fill_the_pauses(serve):
    """While a stream is idle, comment lines come at the interval asked for."""
    caller = serve(pace=0.05, heartbeat=0.02, reply="one")
    answer = caller.say(stream=True)
    assert 2 * 3 == answer.body.count(b": ping\n\n")
    assert "one" == deltas(answer.events)


async def test_a_reader_that_leaves_stops_the_generation(serve, session):
    """When its reader leaves, a stream is stopped at once, costs nothing, and is failed for the status endpoints."""
    caller = serve(reply=lambda _: itertools.repeat("word "), pace=0.005)
    server = caller.server
    body = {"model": "gpt-5", "prompt": "", "stream": True}
    head = {"Authorization": f"Bearer {server.api_key}"}
    async with session.post(f"{server.base_url}/generate", json=body, headers=head) as response:
        async for line in response.content:
            if b"word" in line:
                break
    (received,) = await server.until_disconnect()

    assert 200 == received.answered
    await server.until(lambda: server.in_flight == 0 and server.connections == 0)
    assert () == server.billed
    assert 1_000_000 == server.balance
    assert "failed" == caller.get("/generate/18473").json["status"]


def test_an_endless_stream_waits_for_its_reader(serve):
    """A stream without a pace goes no faster than it is read, and ends when its reader leaves."""
    said = 0

    def reply(_):
        nonlocal said
        while True:
            said += 1
            yield "x" * 1000

    caller = serve(reply=reply)
    with contextlib.closing(caller.send("POST", "/generate", {"model": "m", "prompt": "", "stream": True})) as stream:
        response = stream.getresponse()
        response.read(10_000)
        caller.server.wait_until(lambda: _stands_still(lambda: said))
        # What the buffers of two sockets hold, and not a gigabyte.
        assert said < 20_000
        assert 200 == caller.get("/balance").status
        # Closing the connection alone leaves the file of the response open.
        response.close()
    (received,) = caller.server.wait_for_disconnect()
    assert received.disconnected
    assert () == caller.server.billed


def _stands_still(number):
    before = number()
    time.sleep(0.02)
    return before == number()


def test_an_endless_stream_with_a_fast_reader_ends_too(serve):
    """A reader that keeps up does not keep the server from noticing that it left."""
    caller = serve(reply=lambda _: itertools.repeat("x" * 1000))
    with contextlib.closing(caller.send("POST", "/generate", {"model": "m", "prompt": "", "stream": True})) as stream:
        response = stream.getresponse()
        for _ in range(500):
            response.read1()
        response.close()
    caller.server.wait_for_disconnect()
    caller.server.wait_until(lambda: caller.server.in_flight == 0)


def test_a_reply_that_raises_ends_in_an_error_event(serve, caplog):
    """A reply that raises in the middle of a stream ends it with an error event, unbilled, and is logged."""

    def reply(_):
        yield "one "
        raise ValueError("no more")

    caller = serve(reply=reply)
    events = caller.say(stream=True).events
    assert ["generation_start", "content_delta", "error"] == [event["type"] for event in events]
    assert "ValueError('no more')" == events[-1]["message"]
    assert () == caller.server.billed
    assert "no more" in caplog.text


def test_http_1_0_gets_a_stream_too(caller):
    """A client without chunked encoding reads to the end of the connection."""
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
