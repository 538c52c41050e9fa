"""`RequestWriter` sends the same bytes as aiohttp, for any headers and any body."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuralbox_async._http.aiohttp_transport import AiohttpTransport
from neuralbox_async._http.request_writer import RequestWriter
from neuralbox_async._http.transport import HTTPRequest
from neuralbox_async._options import ConnectionOptions

pytestmark = pytest.mark.usefixtures("no_task_left")

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
# The SDK accepts no others from its users: these describe the connection and the body.
REFUSED = {"host", "content-length", "transfer-encoding", "connection", "expect"}

NAMES = st.sampled_from(
    ["Accept", "Accept-Encoding", "Authorization", "Content-Encoding", "Content-Type", "Cookie", "User-Agent", "X-Y"]
) | st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True).filter(lambda name: name.lower() not in REFUSED)
VALUES = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cc", "Cs"]), max_size=50) | st.just(
    "v" * 9000
)
BODIES = st.none() | st.binary() | st.integers(15_000, 18_000).map(lambda size: b"b" * size) | st.just(b"x" * 200_000)
PATHS = st.sampled_from(["", "/", "/generate", "/generate/gen%201?a=b&c=%C3%A9", "/models/gpt-5/calculate-price"])


class RawServer:
    """A server that records the bytes of each request."""

    def __init__(self):
        self.requests = []

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = CONTENT_LENGTH.search(head)
                self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
                writer.write(RESPONSE)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def exchange(server, transport, make_request):
    """Send three requests one by one, and three together; return their bytes."""
    server.requests.clear()

    async def send():
        response = await transport.send(make_request())
        assert b"{}" == await response.read(100)

    for _ in range(3):  # the third request in a row is written at once
        await send()
    await asyncio.gather(*(send() for _ in range(3)))
    return list(server.requests)


@given(st.sampled_from(["GET", "POST"]), PATHS, st.dictionaries(NAMES, VALUES, max_size=5), BODIES, st.booleans())
@example("POST", "/generate", {"Content-Encoding": "gzip"}, b"\x1f\x8b", True)
@example("POST", "/generate", {"x-a": "\xe9\u20ac"}, b"{}", True)
@example("POST", "/generate", {"content-type": "application/json", "x-a": "\xe9\u20ac"}, b"{}", False)
@example("POST", "/generate", {"accept": "*/*", "accept-encoding": "identity", "host": "a"}, b"{}", True)
@example("POST", "/generate", {}, b"", True)
async def test_any_request(method, path, headers, body, plain):
    """Written one by one or together, each request has the bytes that aiohttp sends."""
    raw, written = RawServer(), []
    prepare = RequestWriter._prepare
    # These make a request plain.
    headers = {"User-Agent": "tests", "Content-Type": "application/json", **headers} if plain else headers
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, limit=10_000_000)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"

    def observed(self, conn, size):
        written.append(prepare(self, conn, size))
        return written[-1]

    sent = []
    for enabled in True, False:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("neuralbox_async._fast_paths.enabled", lambda enabled=enabled: enabled)
            patch.setattr(RequestWriter, "_prepare", observed)
            transport = AiohttpTransport(ConnectionOptions())
            sent.append(await exchange(raw, transport, lambda: HTTPRequest(method, url, headers, body)))
            await transport.aclose()
    server.close()
    await server.wait_closed()

    assert 6 == len(sent[0])
    assert 1 == len(set(sent[0]))
    assert sent[0] == sent[1]
    size = len(body or b"") + sum(map(len, headers.values()))
    if plain and method == "POST" and body and size < 15_000 and not REFUSED & {name.lower() for name in headers}:
        assert 6 == len(written)
        assert all(written)
