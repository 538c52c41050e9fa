"""`instrument`, `opentelemetry-instrument` without code, and a second opinion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from opentelemetry.util.genai.handler import TelemetryHandler

import neuralbox_async
from neuralbox_async import _observers, otel
from neuralbox_async.testing import FakeTransport, NeuralBoxServer

ROOT = Path(neuralbox_async.__file__).parents[1]
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
REPLY = {"id": "gen_1", "status": "completed", "model": "gpt-5-2026", "content": "Hello", "usage": USAGE}


@pytest.fixture
def instrumented(telemetry):
    """Instrument the process for the duration of a test."""
    otel.instrument(**telemetry.providers)
    yield
    otel.uninstrument()
    assert [] == _observers.installed


async def test_instrument(make_client, telemetry):
    """It observes clients that exist already, once however often it is called, until it is undone."""
    client = make_client(FakeTransport(REPLY))
    for _ in range(2):
        otel.instrument(**telemetry.providers)
    await client.generate("gpt-5", "Hi")
    otel.uninstrument()
    otel.uninstrument()
    await client.generate("gpt-5", "Hi")

    assert "chat gpt-5" == telemetry.span.name


async def test_instrumentor(make_client, telemetry):
    """What the entry point names is a class that needs no other package, and accepts what OpenTelemetry passes."""
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    module, _, name = entry_points["opentelemetry_instrumentor"]["neuralbox"].partition(":")
    assert (otel.__name__, otel.NeuralBoxInstrumentor.__name__) == (module, name)
    otel.NeuralBoxInstrumentor().instrument(skip_dep_check=True, **telemetry.providers)
    await make_client(FakeTransport(REPLY)).generate("gpt-5", "Hi")
    otel.NeuralBoxInstrumentor().uninstrument()

    assert 1 == len(telemetry.spans)


async def test_second_opinion(make_client, telemetry, instrumented):
    """What OpenTelemetry's own helper and this package both set for one call is equal."""
    await make_client(FakeTransport(REPLY)).generate("gpt-5", "Hi", temperature=0.5, max_tokens=50)
    handler = TelemetryHandler(tracer_provider=telemetry.tracers, meter_provider=telemetry.meters)
    with handler.inference(
        "neuralbox", request_model="gpt-5", server_address="neuralbox.top", server_port=443
    ) as invocation:
        invocation.temperature, invocation.max_tokens = 0.5, 50
        invocation.response_id, invocation.response_model_name = "gen_1", "gpt-5-2026"
        invocation.input_tokens, invocation.output_tokens = 11, 7
    ours, theirs = telemetry.spans
    both = set(ours.attributes) & set(theirs.attributes)

    assert (ours.name, ours.kind) == (theirs.name, theirs.kind)
    assert len(both) >= 8
    assert {name: theirs.attributes[name] for name in both} == {name: ours.attributes[name] for name in both}


APPLICATION = """
    import json, threading, time, urllib.request

    import uvicorn
    from fastapi import FastAPI
    from neuralbox_async import AsyncNeuralBox
    from neuralbox_sync import NeuralBox
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    app = FastAPI()

    @app.get("/async")
    async def with_the_async_client():
        async with AsyncNeuralBox() as client:
            return (await client.generate("gpt-5", "Hi")).content

    @app.get("/blocking")
    def with_the_blocking_client():
        with NeuralBox() as client:
            return client.generate("gpt-5", "Hi").content

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    for path in ("/async", "/blocking"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read()
    server.should_exit = True
    thread.join()
    for span in exporter.get_finished_spans():
        ids = span.context.trace_id, span.context.span_id, span.parent and span.parent.span_id
        print(json.dumps([span.name, *ids]))
"""


@pytest.mark.process
@pytest.mark.slow
def test_opentelemetry_instrument(tmp_path):
    """`opentelemetry-instrument python app.py` makes one trace from the web request to the call, without any code."""
    metadata = tmp_path / "neuralbox_of_this_test-1.0.dist-info"  # as an installation has it
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: neuralbox-of-this-test\nVersion: 1.0\n")
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    ours = entry_points["opentelemetry_instrumentor"]["neuralbox"]
    (metadata / "entry_points.txt").write_text(f"[opentelemetry_instrumentor]\nneuralbox = {ours}\n")
    (tmp_path / "app.py").write_text(textwrap.dedent(APPLICATION))
    with NeuralBoxServer() as server:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
            "NEURALBOX_API_KEY": server.api_key,
            "NEURALBOX_BASE_URL": server.base_url,
        }
        command = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, "app.py"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        parents = [request.headers.get("traceparent", "") for request in server.requests]
    assert 0 == done.returncode, done.stderr
    spans = [json.loads(line) for line in done.stdout.splitlines()]

    assert 2 == len(parents)
    for path, parent in zip(("/async", "/blocking"), parents, strict=True):
        ((_, trace_id, span_id, _),) = [span for span in spans if span[0] == f"GET {path}"]
        ((_, *call),) = [span for span in spans if span[0] == "chat gpt-5" and span[1] == trace_id]
        assert span_id == call[-1]
        assert f"{trace_id:032x}" == parent.split("-")[1]  # the API could continue the trace
