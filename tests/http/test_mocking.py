"""Users can mock aiohttp under the client, with aioresponses."""

from __future__ import annotations

import ssl
from types import SimpleNamespace

import aiohttp
import pytest
from aioresponses import aioresponses

from neuralbox_async import APIConnectionError, AsyncNeuralBox, ProviderError, RetryPolicy

pytestmark = pytest.mark.usefixtures("no_task_left")

WITHOUT_DELAY = RetryPolicy(jitter=lambda low, _high: low)


class Response(aiohttp.ClientResponse):
    """The response of aioresponses, with the argument that aiohttp 3.14 requires."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"stream_writer": SimpleNamespace(output_size=0), **kwargs})


@pytest.fixture
def mocked(monkeypatch):
    monkeypatch.setattr("aioresponses.core.ClientResponse", Response)
    with aioresponses() as mock:
        yield mock


REQUEST = SimpleNamespace(real_url="https://example.com")
URL = "https://neuralbox.top/api/v2/generate"


def failed_handshake(reason):
    """Return the error of aiohttp for a TLS handshake that failed for the *reason* of OpenSSL."""
    error = ssl.SSLError(1, f"[SSL: {reason}] it failed")
    error.reason = reason
    return aiohttp.ClientConnectorSSLError(SimpleNamespace(host="h", port=443, ssl=True), error)


async def test_aioresponses(mocked):
    """aioresponses can mock a generation, a stream and an error."""
    mocked.post(URL, payload={"id": "gen_1", "content": "Hello"})
    mocked.post(URL, status=500, payload={"error": "provider_error"})
    mocked.post(
        URL,
        body=b'data: {"type": "content_delta", "delta": "Hi"}\n\ndata: [DONE]\n\n',
        content_type="text/event-stream",
    )
    async with AsyncNeuralBox("key", max_retries=0) as client:
        assert "Hello" == (await client.generate("gpt-5", "Hi")).content
        with pytest.raises(ProviderError):
            await client.generate("gpt-5", "Hi")
        async with client.stream("gpt-5", "Hi") as stream:
            assert "Hi" == (await stream.get_final_generation()).content


@pytest.mark.parametrize(
    "exception, attempts, billed",
    [
        (aiohttp.ServerDisconnectedError(), 1, "unknown"),
        (ConnectionResetError("reset"), 1, "unknown"),
        (aiohttp.ClientConnectorError(None, OSError("refused")), 3, "no"),
        (aiohttp.ConnectionTimeoutError("late"), 3, "no"),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=407, message="authenticate"), 1, "no"),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=403, message="forbidden"), 1, "no"),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=408, message="late"), 3, "no"),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=429, message="busy"), 3, "no"),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=502, message="oops"), 3, "no"),
        (failed_handshake("TLSV1_ALERT_INTERNAL_ERROR"), 3, "no"),
        (failed_handshake("UNEXPECTED_EOF_WHILE_READING"), 3, "no"),
        (failed_handshake("TLSV1_ALERT_PROTOCOL_VERSION"), 1, "no"),
        (failed_handshake("UNSUPPORTED_PROTOCOL"), 1, "no"),
        (failed_handshake("SSLV3_ALERT_HANDSHAKE_FAILURE"), 1, "no"),
        (failed_handshake("TLSV13_ALERT_CERTIFICATE_REQUIRED"), 1, "no"),
        (failed_handshake("TLSV1_UNRECOGNIZED_NAME"), 1, "no"),
        (failed_handshake("WRONG_VERSION_NUMBER"), 1, "no"),
        (failed_handshake("TLSV1_ALERT_UNKNOWN_CA"), 1, "no"),
        (aiohttp.InvalidURL("x"), 1, "no"),
        (aiohttp.ServerFingerprintMismatch(b"a", b"b", "h", 1), 1, "no"),
        (aiohttp.ClientResponseError(REQUEST, (), status=400, message="bad"), 1, "unknown"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_mocked_failures(mocked, monkeypatch, exception, attempts, billed):
    """An error of aiohttp that a mock raises is translated like a real one, and is the cause of ours."""
    monkeypatch.setattr(aiohttp.ClientConnectorError, "__str__", lambda _self: "refused")
    mocked.post(URL, exception=exception, repeat=True)
    async with AsyncNeuralBox("key", retry_policy=WITHOUT_DELAY) as client:
        with pytest.raises(APIConnectionError) as caught:
            await client.generate("gpt-5", "Hi")
    assert (attempts, billed) == (caught.value.attempts, caught.value.billed)
    assert caught.value.__cause__ is exception
