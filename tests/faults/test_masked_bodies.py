"""Bodies of errors are masked fast, at any depth, and lose nothing but secrets."""

import json
import time

import pytest
from fault_server import respond_once, response
from outcomes import MIB, generate
from secret_checks import CANARY, assert_no_secret, failure_of, new_client

from neuralbox_async import BadRequestError, ResponseError
from neuralbox_async._call.masking import decode_failure, mask_error
from neuralbox_async._secret import Mask
from neuralbox_async._wire.responses import decode_generation
from neuralbox_async._wire.status_errors import error_from

ESCAPED = "".join(f"\\u{ord(char):04x}" for char in CANARY).encode()


def nested(depth, value=b"1"):
    """Return the body of a generation with an odd text, and a member that is nested *depth* levels."""
    return b'{"id": "gen_1", "content": 5, "metadata": ' + b'{"a\\n": ' * depth + value + b"}" * depth + b"}"


@pytest.mark.parametrize("depth", [100, 600, 900, 5000])
async def test_nested_body(serve, connect, depth):
    """The body of a malformed response is kept whole, however deeply it is nested."""
    server = serve(respond_once(response(nested(depth))))

    error = (await generate(connect(server))).error

    assert ResponseError is type(error)
    assert "expected a string, got a number at $.content" == error.message
    assert "gen_1" == error.generation_id
    assert nested(depth) == error.body


async def test_nested_body_of_an_error(serve, connect):
    """The message and the body of an error status are kept, however deeply its details are nested."""
    body = b'{"error": "bad_request", "message": "no such model", "details": ' + b"[" * 800 + b"]" * 800 + b"}"
    server = serve(respond_once(response(body, status="400 Bad Request")))

    error = (await generate(connect(server))).error

    assert BadRequestError is type(error)
    assert "400 bad_request: no such model" == error.message
    assert body == error.body


ECHOES = {
    "nested": nested(600, b'"%s"' % ESCAPED),
    "nested more deeply than JSON can be parsed": nested(50_000, b'"%s"' % ESCAPED),
    "cut off": b'{"error": "no such key: ' + ESCAPED,
    "malformed": b'{"error": "no such key: %s",]' % ESCAPED,
    "text around JSON": b'while(1); {"error": "no such key: %s"}' % ESCAPED,
}


@pytest.mark.usefixtures("no_secret_in_logs")
@pytest.mark.parametrize("status", ["200 OK", "401 No"])
@pytest.mark.parametrize("body", ECHOES.values(), ids=ECHOES)
async def test_escaped_echo(serve, body, status):
    """A key whose characters are escaped is masked also where the body is no JSON."""
    server = serve(respond_once(response(body, status=status)))

    error = await failure_of(new_client(server.url))

    assert_no_secret(error)
    assert ESCAPED not in error.body


BODIES = {
    "numbers": b'{"content": 5, "more": [' + b"1," * (MIB // 2 - 100) + b"1]}",
    "strings": b'{"content": 5, "more": [' + b'"a",' * (MIB // 4 - 100) + b"1]}",
    "objects": b'{"content": 5, "more": [' + b'{"a":1},' * (MIB // 8 - 100) + b"1]}",
}


@pytest.mark.timing
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_time(body):
    """To mask an error whose body is a mebibyte of short members takes about as long as to parse it."""
    started = time.process_time()
    json.loads(body)
    parsed = time.process_time() - started
    mask = Mask(CANARY)
    with pytest.raises(ResponseError) as caught:
        decode_generation(200, {}, body)
    received = (400, {}, body)

    started = time.process_time()
    decode_failure(caught.value, error_from, received, mask)
    mask_error(caught.value, mask)
    elapsed = time.process_time() - started

    assert elapsed < 8 * parsed + 0.05
