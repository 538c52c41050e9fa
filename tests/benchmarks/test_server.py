"""The benchmarks' server: what it answers to which model, in which API's way."""

import http.client
import itertools
import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from benchmarks import headroom, processes
from benchmarks.clients import raw_socket

PATHS = ("/api/v2/generate", "/v1/chat/completions", "/v1/messages")


def post(port, path, model):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, json.dumps({"model": model}))
    response = connection.getresponse()
    return connection, response


def read(port, path, model):
    connection, response = post(port, path, model)
    try:
        return response.read()
    finally:
        connection.close()


def data_of(body):
    return [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("path", PATHS)
def test_each_answer_has_an_id_of_its_own(port, path):
    """No two answers have the same id, so that one that is lost or comes twice is noticed."""
    ids = {json.loads(read(port, path, "call"))["id"] for _ in range(3)}
    assert 3 == len(ids)


def test_an_answer_has_about_400_bytes(port):
    """The answer to a call has the size that answers of the API have."""
    assert 350 < len(read(port, PATHS[0], "call")) < 550


def test_a_delay_is_kept(port):
    """An answer comes no sooner than after the delay that was asked for."""
    started = time.monotonic()
    read(port, PATHS[0], "call.50")
    assert time.monotonic() - started >= 0.049


@pytest.mark.parametrize("path, others", [(PATHS[0], 3), (PATHS[1], 3), (PATHS[2], 5)])
def test_a_stream_has_as_many_events_as_asked_for(port, path, others):
    """A stream has the events asked for, between those with which the API in question begins and ends one."""
    data = data_of(read(port, path, "bulk.70.1000"))
    assert 70 + others == len(data)
    assert all(json.loads(event) for event in data if event != "[DONE]")


def test_segments_end_where_events_end(port):
    """Each chunk of the body ends with a whole event."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(raw_socket.request_for("bulk.100.1000", stream=True))
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += connection.recv(65536)
    body = received.partition(b"\r\n\r\n")[2]
    chunks = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    assert b"" == chunks.pop()
    assert len(chunks) > 3
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)


def test_a_big_event_is_one_event(port):
    """The text of a big event has the size that was asked for."""
    deltas = [json.loads(data) for data in data_of(read(port, PATHS[0], "big.300000")) if "content_delta" in data]
    assert [300_000] == [len(event["delta"]) for event in deltas]


@pytest.mark.parametrize("kind", ["live", "step"])
def test_live_events_come_at_their_rate_and_tell_when_they_were_sent(port, kind):
    """The events of a live stream are apart by the period of its rate, and each carries its moment."""
    before = time.monotonic()
    deltas = [json.loads(data) for data in data_of(read(port, PATHS[0], f"{kind}.6.100")) if "content_delta" in data]
    sent = [float(event["delta"]) for event in deltas]
    assert 6 == len(sent)
    assert before < sent[0]
    assert sent[-1] < time.monotonic()
    assert sent[-1] - before > 0.05
    assert all(later >= earlier for earlier, later in itertools.pairwise(sent))


def test_streams_in_step_are_sent_together(port):
    """Each event of such a stream comes as a period begins, whenever the stream was asked for."""
    deltas = [json.loads(data) for data in data_of(read(port, PATHS[0], "step.2.4")) if "content_delta" in data]

    assert all(float(event["delta"]) % 0.25 < 0.15 for event in deltas)


def test_held_calls_are_answered_when_they_are_released(port, control):
    """A held call is counted, and gets its answer after the release."""
    bodies = []
    thread = threading.Thread(target=lambda: bodies.append(read(port, PATHS[0], "hold")))
    thread.start()
    while not control.stats()["held"]:
        time.sleep(0.005)
    assert [] == bodies
    control.release()
    thread.join(10)
    assert 1 == len(bodies)
    assert 0 == control.stats()["held"]


def test_what_was_served_is_counted(port, control):
    """The server counts the generations that it was asked for, and not the questions about them."""
    before = control.stats()["served"]
    read(port, PATHS[0], "call")
    assert before + 1 == control.stats()["served"]


def test_pipelined_requests_are_all_answered(port):
    """The server keeps up with a client that sends before it looks."""
    assert headroom.calls_per_second(port, 0.01) > 0
    assert headroom.events_per_second(port, 0.01) > 0


def test_the_server_ends_with_its_standard_input():
    """No server is left behind when the process that started it is gone."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, cwd=processes.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert int(process.stdout.readline()) > 0
        process.stdin.close()
        assert 0 == process.wait(10)
