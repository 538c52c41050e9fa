"""The benchmark server: its response to each model, in each API's wire format, without and with TLS."""

import contextlib
import http.client
import itertools
import json
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest

from benchmarks import processes, server_capacity
from benchmarks.clients.adapter import Address
from benchmarks.clients.raw_socket import STREAM_END, RawConnection, request_bytes

PATHS = ("/api/v2/generate", "/v1/chat/completions", "/v1/messages")


def read(address, path, model):
    if address.ssl_context is None:
        connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=10)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", address.port, timeout=10, context=address.ssl_context)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps({"model": model}))
        return connection.getresponse().read()


def data_of(body):
    return [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]


def deltas_of(body):
    return [json.loads(data)["delta"] for data in data_of(body) if "content_delta" in data]


def receive(address, model):
    """Return the pieces of a stream's response as the socket received them."""
    pieces = []
    with contextlib.closing(RawConnection(address)) as connection:
        connection.socket.settimeout(10)
        connection.socket.sendall(request_bytes(model, stream=True))
        while not b"".join(pieces[-2:]).endswith(STREAM_END):
            pieces.append(connection.socket.recv(65536))
    return pieces


def chunks_of(pieces):
    """Return the HTTP chunks of a response, without the last, empty one."""
    body = b"".join(pieces).partition(b"\r\n\r\n")[2]
    chunks = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        end = int(size, 16)
        chunks.append(rest[:end])
        assert b"\r\n" == rest[end : end + 2]
        body = rest[end + 2 :]
    assert b"" == chunks.pop()
    return chunks


@pytest.mark.parametrize("path", PATHS)
def test_each_response_has_an_id_of_its_own(address, path):
    """No two responses have the same id, so that lost and repeated responses are noticed."""
    ids = {json.loads(read(address, path, "call"))["id"] for _ in range(3)}
    assert 3 == len(ids)


def test_a_response_has_about_400_bytes(address):
    """The response to a call is as large as a typical response of the API."""
    assert 350 < len(read(address, PATHS[0], "call")) < 550


def test_a_delay_is_honoured(address):
    """A response is sent no sooner than after the requested delay."""
    started = time.monotonic()
    read(address, PATHS[0], "call.50")
    assert time.monotonic() - started >= 0.049


@pytest.mark.parametrize("path, others", [(PATHS[0], 3), (PATHS[1], 3), (PATHS[2], 5)])
@pytest.mark.parametrize("model", ["bulk.70.1000", "chunks.70"])
def test_a_stream_has_the_requested_number_of_events(address, path, others, model):
    """A stream has the requested events, between the first and the last events of its API."""
    data = data_of(read(address, path, model))
    assert 70 + others == len(data)
    assert all(json.loads(event) for event in data if event != "[DONE]")


def test_chunks_end_where_events_end(address):
    """In a bulk stream each chunk has many events and ends with a whole one."""
    chunks = chunks_of(receive(address, "bulk.100.1000"))
    assert len(chunks) > 3
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)
    assert all(900 < len(chunk) <= 1000 for chunk in chunks[1:-2])


def test_each_event_is_a_chunk_of_its_own(address):
    """The stream with a chunk per event has one event in each chunk; the chunks share TCP segments."""
    pieces = receive(address, "chunks.200")
    start, *deltas, end = chunks_of(pieces)
    assert b"generation_start" in start
    assert b"generation_end" in end
    assert [1] * 200 == [chunk.count(b"\n\n") for chunk in deltas]
    assert len(pieces) < 50


@pytest.mark.parametrize("kind", ["live", "burst"])
def test_each_live_event_is_a_chunk_and_a_segment_of_its_own(address, kind):
    """Each live event is one chunk, and the client receives the events separately."""
    pieces = receive(address, f"{kind}.5.20")
    assert [1] * 5 == [chunk.count(b"\n\n") for chunk in chunks_of(pieces)[1:-1]]
    assert sum(b"content_delta" in piece for piece in pieces) > 1  # a slow machine may receive two events together


def test_a_big_event_is_one_event(address):
    """The text of a big event has the requested size."""
    assert [300_000] == [len(delta) for delta in deltas_of(read(address, PATHS[0], "big.300000"))]


@pytest.mark.parametrize("kind", ["live", "burst"])
def test_live_events_have_their_rate_and_their_time(address, kind):
    """The events of a live stream are one period apart, and each carries the time when it was sent."""
    before = time.monotonic()
    sent = [float(delta) for delta in deltas_of(read(address, PATHS[0], f"{kind}.6.100"))]
    assert 6 == len(sent)
    assert before < sent[0]
    assert sent[-1] < time.monotonic()
    assert sent[-1] - before > 0.05
    assert all(later >= earlier for earlier, later in itertools.pairwise(sent))


@pytest.mark.timing
def test_synchronised_streams_are_sent_at_the_same_time(address):
    """Each event of such a stream is sent when a period begins, independent of the time of the request."""
    assert all(float(delta) % 0.25 < 0.15 for delta in deltas_of(read(address, PATHS[0], "burst.2.4")))


def test_held_calls_get_a_response_after_their_release(address, control):
    """A held call is counted, and gets its response after the release."""
    bodies = []
    thread = threading.Thread(target=lambda: bodies.append(read(address, PATHS[0], "hold")))
    thread.start()
    while not control.stats()["held"]:
        time.sleep(0.005)
    assert [] == bodies
    control.release()
    thread.join(10)
    assert 1 == len(bodies)
    assert 0 == control.stats()["held"]


def test_served_requests_are_counted(address, control):
    """The server counts the requests for generations, and not the control requests."""
    before = control.stats()["served"]
    read(address, PATHS[0], "call")
    assert before + 1 == control.stats()["served"]


def test_the_capacity_is_measured(address):
    """The server responds to a client that pipelines its requests."""
    assert server_capacity.calls_per_second(address, 0.01) > 0
    assert server_capacity.events_per_second(address, 0.01) > 0


def test_the_tls_port_speaks_only_tls(control):
    """The port with TLS does not accept plain HTTP, so that no client can avoid TLS by mistake."""
    tls = control.tls_address()
    with pytest.raises((http.client.HTTPException, OSError)):
        read(Address(tls.port), PATHS[0], "call")


def test_the_certificate_is_not_trusted_by_default(control):
    """The certificate is made for the run: without the server's own context no client trusts it."""
    tls = control.tls_address()
    with pytest.raises(ssl.SSLCertVerificationError):
        read(Address(tls.port, ssl.create_default_context()), PATHS[0], "call")


def test_tls_has_a_current_version(control):
    """The connection has the TLS version and the protocol that clients negotiate with real servers."""
    tls = control.tls_address()
    with socket.create_connection(("127.0.0.1", tls.port), timeout=10) as plain:
        with tls.ssl_context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            assert "TLSv1.3" == connection.version()
            assert "http/1.1" == connection.selected_alpn_protocol()


@pytest.mark.process
def test_the_server_ends_with_its_standard_input():
    """No server is left behind when the process that started it has ended."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, cwd=processes.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert int(process.stdout.readline()) > 0
        process.stdin.close()
        assert 0 == process.wait(10)
