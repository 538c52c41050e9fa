"""Whatever echoes the key, or the password of the proxy: no error, log or pickle has it."""

import base64
import json
import ssl
from urllib.parse import quote

import pytest
import trustme
from fault_server import STREAM_HEAD, event, events, generation, respond_once, respond_to_each, response
from secret_checks import CANARY, assert_no_secret, failure_of, new_client

from neuralbox_async import AsyncNeuralBox, GenerationFailedError, NeuralBoxError

pytestmark = pytest.mark.usefixtures("no_secret_in_logs")

ECHO = CANARY.encode()
ESCAPED = "".join(f"\\u{ord(char):04x}" for char in CANARY).encode()
REFUSED = b"HTTP/1.1 401 No\r\nConnection: close\r\n"

# Heads that are no HTTP, or odd.
HEADS = {
    "another protocol": b"SSH-2.0-" + ECHO + b"\r\n",
    "a line without an end": ECHO,
    "a malformed status": b"HTTP/1.1 " + ECHO + b" OK\r\n\r\n",
    "another version": b"HTTP/" + ECHO + b" 200 OK\r\n\r\n",
    "the reason": b"HTTP/1.1 401 Bearer " + ECHO + b"\r\nContent-Length: 0\r\n\r\n",
    "a malformed name of a header": REFUSED + b"X " + ECHO + b"\x01: 1\r\n\r\n",
    "a malformed header": REFUSED + b"X-A: " + ECHO + b"\x00\r\n\r\n",
    "a header without a colon": REFUSED + ECHO + b"\r\n\r\n",
    "a length": REFUSED + b"Content-Length: " + ECHO + b"\r\n\r\n",
    "the name of a header": REFUSED + b"X-" + ECHO + b": 1\r\n\r\n",
    "a header": REFUSED + b"X-Debug: Authorization=Bearer " + ECHO + b"\r\n\r\n",
    "an encoding": REFUSED + b"Content-Encoding: " + ECHO + b"\r\nContent-Length: 1\r\n\r\nx",
    "a transfer encoding": REFUSED + b"Transfer-Encoding: " + ECHO + b"\r\n\r\n",
    "the id of the request": REFUSED + b"X-Request-Id: " + ECHO + b"\r\n\r\n",
    "a cookie": REFUSED + b"Set-Cookie: key=" + ECHO + b"\r\n\r\n",
    "the name of a cookie": REFUSED + b"Set-Cookie: " + ECHO + b"@(=1\r\n\r\n",
    "an attribute of a cookie": REFUSED + b"Set-Cookie: a=1; " + ECHO + b"\\=\x7f\r\n\r\n",
    "a redirect": b"HTTP/1.1 307 Go\r\nLocation: https://e.example/?key=" + ECHO + b"\r\nContent-Length: 0\r\n\r\n",
    "a chunk": REFUSED + b"Transfer-Encoding: chunked\r\n\r\n" + ECHO + b"\r\n",
    "a chunk's extension": REFUSED + b"Transfer-Encoding: chunked\r\n\r\n1;" + ECHO + b"=\x01\r\nx\r\n0\r\n\r\n",
    "a trailing header": REFUSED + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX " + ECHO + b"\x01: 1\r\n\r\n",
    "a chunk of a success": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + ECHO + b"\r\n",
    "a success that ends early": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + ECHO,
    "bytes that are not gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 16\r\n\r\n" + ECHO,
}


@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_echo_in_a_head(serve, head, streamed):
    """Nothing shows a key that is echoed in a head, or where a head should be."""
    server = serve(respond_once(head))

    error = await failure_of(new_client(server.url, max_retries=0), streamed=streamed)

    assert server.requests
    assert_no_secret(error)


def bodies():
    """Return bodies of error responses that echo the key."""
    texts = {
        "the key": CANARY,
        "a sentence": f"Incorrect API key provided: {CANARY}.",
        "in base64": base64.b64encode(f"Bearer {CANARY}".encode()).decode(),
        "in base64 for URLs": base64.urlsafe_b64encode(f"?>{CANARY}".encode()).decode(),
        "in capitals and small letters": f"x-{CANARY.lower()}",
        "beyond a limit of length": "x" * 490 + CANARY,
        "beyond the length of an excerpt": "x" * 195 + CANARY,
    }
    found = {name: {"error": "not_authenticated", "message": text} for name, text in texts.items()}
    found |= {
        "a code": {"error": CANARY},
        "a nested message": {"error": {"message": CANARY, "code": CANARY, "type": CANARY}},
        "a detail": {"detail": [{"loc": ["header", CANARY], "msg": CANARY, "input": {"a": [CANARY]}}]},
        "a name": {CANARY: {CANARY: 1}, "details": {CANARY: 1}},
        "a plan": {"plan": CANARY, "retry_after": CANARY},
        "an array": [CANARY],
        "a string": CANARY,
    }
    encoded = {name: json.dumps(body).encode() for name, body in found.items()}
    encoded |= {
        "escaped": b'{"message": "Bearer ' + ESCAPED + b'", "lone": "\\ud83d"}',
        "text": ECHO,
        "unfinished": b'{"message": "' + ECHO,
        "HTML": b"<html><!-- " + ECHO + b" -->",
        "NUL": b"\0" + ECHO + b"\xff",
    }
    return encoded


@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
@pytest.mark.parametrize("status", ["401 No", "429 No", "500 No", "302 Found", "200 OK"])
@pytest.mark.parametrize("body", bodies().values(), ids=bodies())
async def test_echo_in_a_body(serve, body, status, streamed):
    """Nothing shows a key that is echoed in a body, plain or encoded."""
    server = serve(respond_to_each(response(body, status=status)))
    client = new_client(server.url, max_retries=0)
    try:
        error = await failure_of(client, streamed=streamed)
    except AssertionError:
        assert status == "200 OK"  # an object is a generation without a text
        return

    assert_no_secret(error)
    assert ESCAPED not in getattr(error, "body", b"")


MEMBERS = {
    "a wrong type": {"content": 5, "debug": {"authorization": f"Bearer {CANARY}"}},
    "a name": {"content": {CANARY: 5}},
    "failed": {"status": "failed", "error": f"refused {CANARY}", "metadata": {CANARY: [CANARY]}, "content": ""},
    "pending": {"status": f"pending {CANARY}", "content": ""},
    "an id": {"status": "failed", "id": CANARY, "error": None},
}


@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
async def test_echo_in_a_generation(serve, members, streamed):
    """Nothing shows a key that is echoed beside a text: the generation of an error has it nowhere either."""
    server = serve(respond_once(response(generation(**members))))
    try:
        error = await failure_of(new_client(server.url), streamed=streamed)
    except AssertionError:
        assert "pending" in members["status"]
        return

    assert_no_secret(error)
    if isinstance(error, GenerationFailedError):
        assert CANARY not in repr(error.generation.raw)


BROKEN = {
    "an error event": event(type="error", message=f"bad key {CANARY}"),
    "an error event with members": event(type="error", error={"code": CANARY, "message": CANARY}),
    "an event that is not JSON": b"data: {" + ECHO + b"\n\n",
    "an event of another kind": b"data: [" + ECHO + b"]\n\n",
    "a wrong type": event(type="content_delta", delta={CANARY: 1}),
    "an unknown event": event(type=CANARY, key=CANARY),
    "a name of an event": b"event: " + ECHO + b"\ndata: {}\n\n",
    "a comment": b": " + ECHO + b"\n\n",
    "an escaped key": b'data: {"type": "error", "message": "' + ESCAPED + b'"}\n\n',
    "half an event": b'data: {"type": "content_delta", "delta": "' + ECHO,
}


@pytest.mark.parametrize("recover", [False, True], ids=["not recovered", "recovered"])
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_echo_in_a_stream(serve, broken, recover):
    """The error of a broken stream keeps its text, and shows no key that the stream or a status request echoes."""
    sent = STREAM_HEAD + events("Hello ", "world", end=False) + broken
    server = serve(respond_once(sent), respond_once(response(ECHO, "X-A: " + CANARY, status="403 No")))

    error = await failure_of(new_client(server.url), streamed=True, recover=recover)

    assert error.text.startswith("Hello world")
    assert_no_secret(error)


async def test_echo_in_a_redirect(serve):
    """The target of a redirect that a GET follows is in no traceback, also when the call is cancelled there."""
    target = f"Location: /api/v2/other?key={CANARY}"
    server = serve(respond_once(response(b"", target, status="302 Found")), respond_once(b"garbage " + ECHO + b"\r\n"))

    error = await failure_of_status_request(new_client(server.url, max_retries=0))

    assert CANARY in server.requests[1].path
    assert_no_secret(error)


async def failure_of_status_request(client):
    """Return the error of a status request."""
    async with client:
        with pytest.raises(NeuralBoxError) as caught:
            await client.retrieve("gen_1")
    return caught.value


async def test_echo_in_a_certificate(serve):
    """The error of a certificate that has the key in its names does not show it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority = trustme.CA()
    authority.issue_cert(f"{CANARY.replace('_', '-')}.example", common_name=CANARY).configure_cert(context)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    for options in ({}, {"ssl_context": trusted}):
        server = serve(respond_once(), tls=context)
        assert_no_secret(await failure_of(new_client(server.url, max_retries=0, **options)))


PASSWORD = "pa55/w+rd: linnet&\u00e9"
TOKEN = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
ALONE = base64.b64encode(PASSWORD.encode()).decode()
PROXY_ECHOES = {"plain": PASSWORD, "quoted": quote(PASSWORD, safe=""), "base64": TOKEN, "alone": ALONE}
PROXY_RESPONSES = {
    "the reason": "HTTP/1.1 407 {}\r\nContent-Length: 0\r\n\r\n",
    "a header": "HTTP/1.1 407 No\r\nX-Debug: {}\r\nContent-Length: 0\r\n\r\n",
    "a body": "HTTP/1.1 407 No\r\nConnection: close\r\n\r\n{}",
    "garbage": "{}\r\n\r\n",
    "a malformed header": "HTTP/1.1 407 No\r\nX {}\x01\r\n\r\n",
}


@pytest.mark.parametrize("base_url", ["https://api.example", "http://localhost:9"])
@pytest.mark.parametrize("first", PROXY_RESPONSES.values(), ids=PROXY_RESPONSES)
async def test_echo_of_the_password_of_a_proxy(serve, first, base_url):
    """Nothing shows a password that the proxy echoes, however it writes it."""

    async def script(connection):
        await connection.head()
        await connection.send(first.format(" ".join(PROXY_ECHOES.values())).encode())
        connection.finish()

    server = serve(script)
    proxy = f"http://user:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}"

    error = await failure_of(new_client(base_url, proxy=proxy, max_retries=0, connect_timeout=2))

    for secret in [*PROXY_ECHOES.values(), quote(PASSWORD), "linnet"]:
        assert_no_secret(error, secret=secret)


async def test_a_token_as_the_user_of_a_proxy(serve):
    """A user without a password is a secret as well."""

    async def script(connection):
        await connection.head()
        await connection.send(b"HTTP/1.1 407 " + ECHO + b"\r\n\r\n")
        connection.finish()

    proxy = f"http://{CANARY}@127.0.0.1:{serve(script).port}"

    assert_no_secret(await failure_of(AsyncNeuralBox("k", base_url="https://api.example", proxy=proxy)))


WORDS = ["k", "e", "a", "no", "the", "error", "unknown", "stream", "message", "content", "provider_error", "usage"]


@pytest.mark.parametrize("key", WORDS)
@pytest.mark.parametrize(
    "body, expected",
    [
        ({"error": "provider_error", "message": "x"}, ("ProviderError", "no", "500")),
        ({"error": {"code": "model_broken", "message": "x"}}, ("InternalServerError", "unknown", "500")),
    ],
)
async def test_a_key_that_is_a_word_in_an_error_status(serve, key, body, expected):
    """A key that is also a word changes neither the type of an error, nor its facts, nor our words."""
    server = serve(respond_to_each(response(body, status="500 No")))
    error = await failure_of(AsyncNeuralBox(key, base_url=server.url, max_retries=0))

    assert expected == (type(error).__name__, error.billed, error.message[:3])
    assert {"message", "status_code", "code", "headers", "body", "details"} <= set(vars(error))


@pytest.mark.parametrize("key", WORDS)
@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
async def test_a_key_that_is_a_word_elsewhere(serve, key, streamed):
    """Our messages and the paths of members are the same with any key."""
    messages = {}
    for each in (key, "nb_another_key_51d2"):
        scripts = {
            "cut": STREAM_HEAD + events("Hi", end=False) if streamed else response(b"{}")[:-1],
            "wrong type": STREAM_HEAD + event(type="content_delta", delta=5)
            if streamed
            else response({"id": "1", "status": "completed", "content": 5}),
            "not HTTP": b"",
        }
        for name, sent in scripts.items():
            server = serve(respond_once(sent))
            client = AsyncNeuralBox(each, base_url=server.url, max_retries=0)
            error = await failure_of(client, streamed=streamed)
            facts = error.message, error.billed, getattr(error, "path", None), type(error), error.text
            assert messages.setdefault(name, facts) == facts
            assert "***" not in error.message


async def test_a_key_that_is_a_word_and_echoed(serve):
    """A key that is also a word is masked where the server has sent it."""
    body = {"error": "not_authenticated", "message": "Incorrect API key: unknown."}
    server = serve(respond_once(response(body, "X-Key: unknown", status="401 No")))
    error = await failure_of(AsyncNeuralBox("unknown", base_url=server.url))

    assert ("401 not_authenticated: Incorrect API key: ***.", "***", "no") == (
        error.message,
        error.headers["x-key"],
        error.billed,
    )
