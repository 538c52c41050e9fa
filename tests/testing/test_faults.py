"""Scripted faults: each is done to the requests that it is meant for, and to no others."""

import contextlib
import http.client
import socket
import time

import pytest

from neuralbox_async.testing import Fault

BODY = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello big world"}], "stream": True}
EVENTS = 8  # a start, five pieces, an end, [DONE]


def events_in(data):
    """Return how many whole events there are."""
    return data.count(b"\n\n")


@pytest.mark.parametrize(
    "status, code",
    [(400, "bad_request"), (401, "not_authenticated"), (500, "provider_error"), (503, "model_unavailable")],
)
def test_fail_answers_with_the_documented_envelope(caller, status, code):
    """A failure has the code documented for its status, and costs nothing."""
    caller.server.fail(status)
    answer = caller.say()
    assert (status, code, {}) == (answer.status, answer.json["error"], answer.json["details"])
    assert "application/json" == answer.headers["Content-Type"]
    assert () == caller.server.billed
    assert 200 == caller.say().status


def test_fail_429_is_flat(serve):
    """A scripted 429 has the flat body of the documentation."""
    caller = serve(limit_hour=100)
    caller.server.fail(429)
    caller.server.fail(429, retry_after=0.25, headers={"Retry-After": "1"})
    first, second = caller.say(), caller.say()

    expected = {"retry_after": 1, "plan": "vip", "limit_hour": 100, "limit_day": None}
    assert expected == {name: first.json[name] for name in expected}
    assert 0.25 == second.json["retry_after"]
    assert "1" == second.headers["Retry-After"]
    assert "100" == second.headers["X-RateLimit-Remaining-Hour"]


def test_fail_with_words_of_its_own(caller):
    """Code, message and retry_after of any failure can be given, also of a status nobody documents."""
    caller.server.fail(503, code="busy", message="Later.", retry_after=3)
    caller.server.fail(418)
    assert {"error": "busy", "message": "Later.", "details": {}, "retry_after": 3} == caller.say().json
    assert {"error": "error", "message": "HTTP status 418.", "details": {}} == caller.say().json


@pytest.mark.parametrize(
    "body, expected",
    [
        (b"\xff<html>", b"\xff<html>"),
        ("<html>\xe9", b"<html>\xc3\xa9"),
        ({"detail": "no"}, b'{"detail":"no"}'),
        (b"", b""),
    ],
)
def test_fail_with_a_body_of_its_own(caller, body, expected):
    """A body is sent as it is, with the headers given, under any status."""
    caller.server.fail(200, body=body, headers={"Content-Type": "text/html", "X-Cache": "MISS"})
    answer = caller.say()
    assert (200, expected) == (answer.status, answer.body)
    assert ("text/html", "MISS") == (answer.headers["Content-Type"], answer.headers["X-Cache"])


@pytest.mark.parametrize("stream", [False, True])
def test_fail_after_billing(caller, stream):
    """A failure may come after the generation was run and billed."""
    caller.server.fail(502, billed=True)
    assert 502 == caller.say(stream=stream).status
    assert 1 == len(caller.server.billed)


def test_faults_come_in_order_one_each(caller):
    """Each request takes one fault, the oldest; those not taken can be seen."""
    caller.server.fail(500, 2)
    caller.server.fail(503)
    assert 3 == len(caller.server.faults)
    assert all(isinstance(fault, Fault) for fault in caller.server.faults)
    assert [500, 500, 503, 200] == [caller.say().status for _ in range(4)]
    assert () == caller.server.faults


def test_faults_of_streams_are_for_streams(caller):
    """A fault that only a stream can have waits for a stream, and one aimed at others leaves streams alone."""
    caller.server.cut(1)
    caller.server.fail(500, stream=False)
    assert 200 == caller.say(stream=True).status
    assert [500, 200] == [caller.say().status for _ in range(2)]
    assert () == caller.server.faults


def test_faults_leave_other_requests_alone(caller):
    """Unless aimed elsewhere, a fault is for a POST to a generate endpoint."""
    caller.server.fail(503)
    assert 200 == caller.get("/balance").status
    assert 200 == caller.post({}, "/models/gpt-5/calculate-price").status
    assert 503 == caller.say(path="/generate/stream").status


def test_faults_can_be_aimed(caller):
    """A method and a pattern of the path aim a fault; without a pattern any path of the method is hit."""
    caller.say()
    caller.server.fail(500, path="/models/*", method="GET")
    caller.server.fail(503, method="GET")
    assert [503, 500, 200] == [caller.get(path).status for path in ("/balance", "/models/gpt-5", "/balance")]
    caller.server.fail(404, method="GET", path="/generate/status/*")
    assert [200, 404] == [caller.get(f"/generate/{path}18473").status for path in ("", "status/")]


def test_delay_comes_before_the_answer(caller):
    """A delayed request is answered after that time, as usual."""
    caller.server.delay(0.05)
    started = time.monotonic()
    assert 200 == caller.say().status
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("scripted", [True, False])
def test_what_is_not_streamed_is_billed_though_its_client_left(serve, scripted):
    """A generation that is not streamed is completed and billed although nobody waits for it any more."""
    caller = serve(latency=0.0 if scripted else 0.05)
    if scripted:
        caller.server.delay(0.05)
    caller.send("POST", "/generate", {**BODY, "stream": False}).close()
    (received,) = caller.server.wait_for_disconnect()
    assert () == caller.server.billed
    caller.server.wait_until(lambda: caller.server.billed)
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert received.answered is None


def test_dropping_a_client_that_left(serve):
    """Where the client has gone already, there is nothing to hang up."""
    caller = serve(latency=0.05)
    caller.server.drop("after", how="reset")
    caller.send("POST", "/generate", {**BODY, "stream": False}).close()
    (received,) = caller.server.wait_for_disconnect()
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert (True, 1) == (received.disconnected, len(caller.server.billed))


@pytest.mark.parametrize("scripted", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_generations_can_stop_with_their_clients(serve, scripted, stream):
    """A stream always, and the rest if the server was told so, is given up when the client leaves."""
    caller = serve(stop_on_disconnect=not stream, latency=0 if scripted else 0.2, balance=2)
    if scripted:
        caller.server.delay(30)
    caller.send("POST", "/generate", {**BODY, "stream": stream}).close()
    caller.server.wait_for_disconnect()
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert () == caller.server.billed
    # Nothing stays reserved: the balance covers one generation, and does so still.
    assert 200 == caller.say().status


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how, error", [("eof", http.client.RemoteDisconnected), ("reset", ConnectionResetError)])
def test_drop_gives_no_answer(caller, stream, when, how, error):
    """A dropped request gets no answer, by an orderly end or a reset; dropped after, it was billed all the same."""
    caller.server.drop(when, how=how)
    with pytest.raises(error) as caught:
        caller.post({**BODY, "stream": stream})
    assert error is type(caught.value)
    assert {"before": 0, "after": 1}[when] == len(caller.server.billed)
    (received,) = caller.server.requests
    assert (None, False) == (received.answered, received.disconnected)
    assert "Hello big world" == received.json["messages"][0]["content"]


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_cut_by_a_clean_end(caller, after):
    """A cut stream has that many events, and a body that ends as if all were well; it costs nothing."""
    caller.server.cut(after)
    data, error = caller.cut_short(BODY)
    assert (after, None) == (events_in(data), error)
    assert () == caller.server.billed
    body = caller.get("/generate/18473").json
    assert ("failed", "Interrupted: the connection was lost") == (body["status"], body["error"])


@pytest.mark.parametrize("after", [0, 1, 3, 6])
@pytest.mark.parametrize("how, expected", [("close", http.client.IncompleteRead), ("reset", ConnectionResetError)])
def test_cut_inside_the_body(caller, after, how, expected):
    """A stream cut by the end of the connection or a reset delivers that many events, and breaks."""
    caller.server.cut(after, how=how)
    data, error = caller.cut_short(BODY)
    assert after == events_in(data)
    assert expected is type(error)
    assert () == caller.server.billed
    assert not caller.server.requests[0].disconnected


@pytest.mark.parametrize("after, billed", [(EVENTS - 2, 0), (EVENTS - 1, 1), (EVENTS, 1)])
def test_cut_around_the_end(caller, after, billed):
    """A stream is billed when its generation_end was sent, whatever comes after."""
    caller.server.cut(after, how="close")
    data, _ = caller.cut_short(BODY)
    assert (after, billed) == (events_in(data), len(caller.server.billed))


def test_cut_beyond_the_end(caller):
    """A stream with fewer events than the cut is whole."""
    caller.server.cut(EVENTS + 1, how="reset")
    data, error = caller.cut_short(BODY)
    assert (EVENTS, None) == (events_in(data), error)


@pytest.mark.parametrize("how", ["eof", "close", "reset"])
def test_what_was_cut_can_be_finished(caller, how):
    """A cut generation may be completed and billed, and its whole text read at the status endpoints."""
    caller.server.cut(3, how=how, finish=True)
    caller.cut_short(BODY)
    assert 1 == len(caller.server.billed)
    assert "You said: Hello big world" == caller.get("/generate/18473").json["result_text"]


@pytest.mark.parametrize("finish", [False, True])
def test_stall_holds_the_connection(caller, finish):
    """A stalled stream sends no more, and is held until its reader leaves."""
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
    """A stalled stream still sends heartbeats, if the server has any."""
    caller = serve(heartbeat=0.01)
    caller.server.stall(0)
    with contextlib.closing(caller.send("POST", "/generate", BODY)) as connection:
        response = connection.getresponse()
        assert b": ping\n\n" * 3 == response.read(3 * len(b": ping\n\n"))
        response.close()
    caller.server.wait_for_disconnect()


@pytest.mark.parametrize("done", [False, True])
def test_error_event(caller, done):
    """A stream can end with an error event, with or without [DONE]; it costs nothing."""
    caller.server.error_event(2, "Out of ideas", done=done)
    events = caller.say(stream=True).events
    assert {"type": "error", "message": "Out of ideas"} == events[2]
    assert ["[DONE]"] * done == events[3:]
    assert () == caller.server.billed


def test_the_pace_holds_before_a_fault(serve):
    """A paced stream is cut at the same event."""
    caller = serve(pace=0.001)
    caller.server.cut(4)
    assert 4 == events_in(caller.cut_short(BODY)[0])


def test_a_client_that_leaves_while_it_uploads(caller):
    """A request whose body never comes whole is recorded as disconnected, and nothing is billed."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", caller.server.port))) as raw:
        raw.sendall(b"POST /api/v2/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        caller.server.wait_until(lambda: caller.server.in_flight == 1)
    (received,) = caller.server.wait_for_disconnect()
    caller.server.wait_until(lambda: caller.server.in_flight == 0)
    assert (None, ()) == (received.answered, caller.server.billed)


def test_a_client_that_talks_no_http(caller):
    """What is no HTTP is answered with 400 by the HTTP layer, and is no request."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", caller.server.port))) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert b" 400 " in raw.recv(1000)
    assert () == caller.server.requests
