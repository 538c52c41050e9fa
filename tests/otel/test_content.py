"""Content is exported only by opt-in, and the key never."""

from __future__ import annotations

import json

import pytest
from stream_bodies import RESET, START, delta, sse, stream_of

from neuralbox_async import NeuralBoxError
from neuralbox_async.otel import ContentCapture
from neuralbox_async.testing import FakeResponse, FakeTransport

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
PROMPT, SYSTEM, TEXT = "canary prompt 51c9", "canary system 8e2d", "canary text 0b7e"
REPLY = {"id": "gen_1", "status": "completed", "content": TEXT}


def transport():
    """Return one that replies, refuses with an echo of everything, and breaks a stream off."""
    echo = json.dumps({"error": {"code": "provider_error", "message": f"{KEY} {PROMPT} {TEXT}"}}).encode()
    refusal = FakeResponse(echo, status_code=500, headers={"x-echo": KEY})
    return FakeTransport(REPLY, refusal, stream_of(sse(START, delta(TEXT)), RESET))


async def use(client):
    """Make a call that succeeds, one that fails, and a stream that breaks off."""
    await client.generate("gpt-5", PROMPT, system=SYSTEM)
    with pytest.raises(NeuralBoxError):
        await client.generate("gpt-5", PROMPT, system=SYSTEM)
    async with client.stream("gpt-5", PROMPT, system=SYSTEM, recover=False) as stream:
        with pytest.raises(NeuralBoxError):
            await stream.get_final_generation()


async def test_no_content(observed, telemetry, caplog):
    """Unless the user opts in, no span, metric or log has the key, a prompt or a text."""
    caplog.set_level(0)
    await use(observed(transport()))
    exported = telemetry.everything + caplog.text + repr([vars(record) for record in caplog.records])

    assert 3 == len(telemetry.spans)
    assert [] == [secret for secret in (KEY, PROMPT, SYSTEM, TEXT) if secret in exported]


@pytest.mark.parametrize("mode", ["SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"])
async def test_content(make_client, telemetry, monkeypatch, mode):
    """The environment variable selects where the content is: in spans, in events, or in both; the key is nowhere."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", mode.lower())
    await use(make_client(transport(), observers=[telemetry.observer()], max_retries=0))
    system = [{"type": "text", "content": SYSTEM}]
    sent = [{"role": "user", "parts": [{"type": "text", "content": PROMPT}]}]
    received = [{"role": "assistant", "parts": [{"type": "text", "content": TEXT}]}]

    assert KEY not in telemetry.everything
    if mode != "EVENT_ONLY":
        first, _, broken = [span.attributes for span in telemetry.spans]
        assert system == json.loads(first["gen_ai.system_instructions"])
        assert sent == json.loads(first["gen_ai.input.messages"])
        assert received == json.loads(first["gen_ai.output.messages"])
        assert [{**received[0], "finish_reason": "error"}] == json.loads(broken["gen_ai.output.messages"])
    else:
        assert PROMPT not in repr([span.to_json() for span in telemetry.spans])
    if mode != "SPAN_ONLY":
        record = telemetry.records[0]
        assert "gen_ai.client.inference.operation.details" == record.event_name
        assert telemetry.spans[0].context.span_id == record.span_id
        assert PROMPT in repr(record.attributes["gen_ai.input.messages"])
    else:
        assert [] == telemetry.records


async def test_images(make_client, telemetry):
    """An image is exported as its URL; the bytes of one are not."""
    parts = [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    observer = telemetry.observer(capture_content=ContentCapture.SPAN_ONLY)
    await make_client(FakeTransport(REPLY), observers=[observer]).generate(
        "gpt-5", [{"role": "user", "content": parts}]
    )
    (message,) = json.loads(telemetry.span.attributes["gen_ai.input.messages"])

    assert ["text", "uri", "uri"] == [part["type"] for part in message["parts"]]
    assert "https://example.com/a.png" == message["parts"][1]["uri"]
    assert "AAAA" not in telemetry.everything


def test_wrong_mode(telemetry, monkeypatch):
    """A wrong value of the variable is a warning, and captures nothing."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    with pytest.warns(UserWarning, match="must be one of NO_CONTENT"):
        assert not telemetry.observer().wants_content
