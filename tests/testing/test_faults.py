"""Injected faults: each applies to the requests that match it, and to no others."""

import contextlib
import http.client
import socket
import time

import pytest

from neuralbox_async.testing import Fault

BODY = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello big world"}], "stream": True}
EVENTS = 8  # a start, five tokens, an end, [DONE]


def events_in(data):
    """Return the number of complete events."""
    return data.count(b"\n\n")


@pytest.mark.parametrize(
    "status, code",
    [(400, "bad_request"), (401, "not_authenticated"), (500, "provider_error"), (503, "model_unavailable")],
)
def test_fail_responses_with_the_documented_envelope(caller, status, code):
    """A failure has the documented code of its status and is not billed."""
    caller.server.fail(status)
    response = caller.post_message()
    assert (status, code, {}) == (response.status, response.json["error"], response.json["details"])
    assert "application/json" == response.headers["Content-Type"]
    assert () == caller.server.billed
    assert 200 == caller.post_message().status


def test_fail_429_is_flat(serve):
    """An injected 429 has the documented flat body."""
    caller = serve(limit_hour=100)
    caller.server.fail(429)
    caller.server.fail(429, retry_after=0.25, headers={"Retry-After": "1"})
    first, second = caller.post_message(), caller.post_message()

    expected = {"retry_after": 1, "plan": "vip", "limit_hour": 100, "limit_day": None}
    assert expected == {name: first.json[name] for name in expected}
    assert 0.25 == second.json["retry_after"]
    assert "1" == second.headers["Retry-After"]
    assert "100" == second.headers["X-RateLimit-Remaining-Hour"]


def test_fail_with_custom_fields(caller):
    """Code, message and retry_after of a failure can be set. An undocumented status has defaults too."""
    caller.server.fail(503, code="busy", message="Later.", retry_after=3)
    caller.server.fail(418)
    assert {"error": "busy", "message": "Later.", "details": {}, "retry_after": 3} == caller.post_message().json
    assert {"error": "error", "message": "HTTP status 418.", "details": {}} == caller.post_message().json


@pytest.mark.parametrize(
    "body, expected",
    [
        (b"\xff<html>", b"\xff<html>"),
        ("<html>\xe9", b"<html>\xc3\xa9"),
        ({"detail": "no"}, b'{"detail":"no"}'),
        (b"", b""),
    ],
)
def test_fail_with_a_custom_body(caller, body, expected):
    """A custom body is sent unchanged, with custom headers and any status."""
    caller.server.fail(200, body=body, headers={"Content-Type": "text/html", "X-Cache": "MISS"})
    response = caller.post_message()
    assert (200, expected) == (response.status, response.body)
    assert ("text/html", "MISS") == (response.headers["Content-Type"], response.headers["X-Cache"])


@pytest.mark.parametrize("stream", [False, True])
def test_fail_after_billing(caller, stream):
    """A failure may follow after the generation was run and billed."""
    caller.server.fail(502, billed=True)
    assert 502 == caller.post_message(stream=stream).status
    assert 1 == len(caller.server.billed)


def test_each_request_takes_the_oldest_fault(caller):
    """Each request takes one fault, the oldest. The pending faults are visible."""
    caller.server.fail(500, 2)
    caller.server.fail(503)
    assert 3 == len(caller.server.faults)
    assert all(isinstance(fault, Fault) for fault in caller.server.faults)
    assert [500, 500, 503, 200] == [caller.post_message().status for _ in range(4)]
    assert () == caller.server.faults


def test_stream_faults_match_streams_only(caller):
    """A stream fault waits for a stream. A fault with stream=False does not apply to streams."""
    caller.server.cut(1)
    caller.server.fail(500, stream=False)
    assert 200 == caller.post_message(stream=True).status
    assert [500, 200] == [caller.post_message().status for _ in range(2)]
    assert () == caller.server.faults


def test_faults_match_generate_endpoints_by_default(caller):
    """By default a fault applies to a POST to a generate endpoint."""
    caller.server.fail(503)
    assert 200 == caller.get("/balance").status
    assert 200 == caller.post({}, "/models/gpt-5/calculate-price").status
    assert 503 == caller.post_message(path="/generate/stream").status


def test_faults_match_method_and_path(caller):
    """A fault matches a method and a path pattern. Without a pattern it matches any path of the method."""
    caller.post_message()
    caller.server.fail(500, path="/models/*", method="GET")
    caller.server.fail(503, method="GET")
    assert [503, 500, 200] == [caller.get(path).status for path in ("/balance", "/models/gpt-5", "/balance")]
    caller.server.fail(404, method="GET", path="/generate/status/*")
    assert [200, 404] == [caller.get(f"/generate/{path}18473").status for path in ("", "status/")]


def test_delay_precedes_the_response(caller):
    """A delayed request gets a normal response after the delay."""
    caller.server.delay(0.05)
    started = time.monotonic()
    assert 200 == caller.post_message().status
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("injected", [True, False])
def test_generation_is_billed_although_its_client_disconnected(serve, injected):
    """A generation that is not streamed is completed and billed although its client disconnected."""
    caller = serve(latency=0.0 if injected else 0.05)
    if injected:
        caller.server.delay(0.05)
    caller.send("POST", "/generate", {**BODY, "stream": False}).close()
    (received,) = caller.server.wait_for_disconnect()
    assert () == caller.server.billed
    caller.server.wait_until(lambda: caller.server.billed)
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert received.response_status is None


def test_drop_after_a_disconnect(serve):
    """A drop has no effect if the client has disconnected before."""
    caller = serve(latency=0.05)
    caller.server.drop("after", how="reset")
    caller.send("POST", "/generate", {**BODY, "stream": False}).close()
    (received,) = caller.server.wait_for_disconnect()
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert (True, 1) == (received.disconnected, len(caller.server.billed))


@pytest.mark.parametrize("injected", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_generation_stops_on_disconnect(serve, injected, stream):
    """A disconnect stops a stream always, and other generations if stop_on_disconnect is set."""
    caller = serve(stop_on_disconnect=not stream, latency=0 if injected else 0.2, balance=2)
    if injected:
        caller.server.delay(30)
    caller.send("POST", "/generate", {**BODY, "stream": stream}).close()
    caller.server.wait_for_disconnect()
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert () == caller.server.billed
    # The reservation was released: the balance covers one generation.
    assert 200 == caller.post_message().status


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how, error", [("eof", http.client.RemoteDisconnected), ("reset", ConnectionResetError)])
def test_drop_sends_no_response(caller, stream, when, how, error):
    """A dropped request gets an orderly end or a reset instead of a response. Only when="after" it is billed."""
    caller.server.drop(when, how=how)
    with pytest.raises(error) as caught:
        caller.post({**BODY, "stream": stream})
    assert error is type(caught.value)
    assert {"before": 0, "after": 1}[when] == len(caller.server.billed)
    (received,) = caller.server.requests
    assert (None, False) == (received.response_status, received.disconnected)
    assert "Hello big world" == received.json["messages"][0]["content"]


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_cut_by_a_clean_end(caller, after):
    """A cut stream has the configured number of events and a correctly ended body. It is not billed."""
    caller.server.cut(after)
    data, error = caller.read_until_error(BODY)
    assert (after, None) == (events_in(data), error)
    assert () == caller.server.billed
    body = caller.get("/generate/18473").json
    assert ("failed", "Interrupted: the connection was lost") == (body["status"], body["error"])


@pytest.mark.parametrize("after", [0, 1, 3, 6])
@pytest.mark.parametrize("how, expected", [("close", http.client.IncompleteRead), ("reset", ConnectionResetError)])
def test_cut_inside_the_body(caller, after, how, expected):
    """A stream cut by a closed or reset connection delivers the configured number of events, then an error."""
    caller.server.cut(after, how=how)
    data, error = caller.read_until_error(BODY)
    assert after == events_in(data)
    assert expected is type(error)
    assert () == caller.server.billed
    assert not caller.server.requests[0].disconnected


@pytest.mark.parametrize("after, billed", [(EVENTS - 2, 0), (EVENTS - 1, 1), (EVENTS, 1)])
def test_cut_around_the_end(caller, after, billed):
    """A stream is billed once its generation_end is sent, whatever happens after it."""
    caller.server.cut(after, how="close")
    data, _ = caller.read_until_error(BODY)
    assert (after, billed) == (events_in(data), len(caller.server.billed))


def test_cut_beyond_the_end(caller):
    """A stream with fewer events than the cut is complete."""
    caller.server.cut(EVENTS + 1, how="reset")
    data, error = caller.read_until_error(BODY)
    assert (EVENTS, None) == (events_in(data), error)


@pytest.mark.parametrize("how", ["eof", "close", "reset"])
def test_cut_with_finish(caller, how):
    """With finish=True a cut generation is completed and billed, and the status endpoints return its text."""
    caller.server.cut(3, how=how, finish=True)
    caller.read_until_error(BODY)
    assert 1 == len(caller.server.billed)
    assert "You said: Hello big world" == caller.get("/generate/18473").json["result_text"]


@pytest.mark.parametrize("finish", [False, True])
def test_stall_holds_the_connection(caller, finish):
    """A stalled stream sends nothing more and stays open until its reader disconnects."""
    caller.server.stall(2, finish=finish)
    with contextlib.closing(caller.send("POST", "/generate", BODY)) as connection:
        response = connection.getresponse()
        read = b""
        while events_in(read) < 2:
            read += response.read1()
        connection.sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            response.read1()
        assert (1, 1) == (caller.server.in_flight, caller.server.connections)
        assert int(finish) == len(caller.server.billed)
        response.close()
    caller.server.wait_for_disconnect()
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert int(finish) == len(caller.server.billed)


def test_stall_with_heartbeats(serve):
    """A stalled stream still sends heartbeats if the server has an interval for them."""
    caller = serve(heartbeat=0.01)
    caller.server.stall(0)
    with contextlib.closing(caller.send("POST", "/generate", BODY)) as connection:
        response = connection.getresponse()
        assert b": ping\n\n" * 3 == response.read(3 * len(b": ping\n\n"))
        response.close()
    caller.server.wait_for_disconnect()


@pytest.mark.parametrize("done", [False, True])
def test_error_event(caller, done):
    """A stream can end with an error event, with or without [DONE]. It is not billed."""
    caller.server.error_event(2, "Out of ideas", done=done)
    events = caller.post_message(stream=True).events
    assert {"type": "error", "message": "Out of ideas"} == events[2]
    assert ["[DONE]"] * done == events[3:]
    assert () == caller.server.billed


def test_cut_with_an_event_interval(serve):
    """An event interval does not change where a stream is cut."""
    caller = serve(event_interval=0.001)
    caller.server.cut(4)
    assert 4 == events_in(caller.read_until_error(BODY)[0])


def test_disconnect_during_the_upload(caller):
    """A request with an incomplete body is recorded as disconnected and not billed."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", caller.server.port))) as raw:
        raw.sendall(b"POST /api/v2/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        caller.server.wait_until(lambda: caller.server.in_flight == 1)
    (received,) = caller.server.wait_for_disconnect()
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert (None, ()) == (received.response_status, caller.server.billed)


def test_malformed_http(caller):
    """Data that is not HTTP gets a 400 from the HTTP layer and is not recorded."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", caller.server.port))) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert b" 400 " in raw.recv(1000)
    assert () == caller.server.requests
