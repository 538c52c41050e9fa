"""The `EventSource` and `fetch` of Chromium against an application under uvicorn and hypercorn."""

import contextlib
import importlib.util
import itertools

import pytest
from chromium import browser, path_or_skip
from web_server import free_port, wait_until_listening

from neuralbox_async.testing import NeuralBoxServer

TIMEOUT = 60.0  # seconds
SERVERS = {
    "uvicorn": ("-m", "uvicorn", "--log-level", "warning", "--factory", "--port", "{port}", "web_apps:starlette_app"),
    "hypercorn": ("-m", "hypercorn", "--bind", "127.0.0.1:{port}", "web_apps:starlette_app()"),
}
# Resolves with all that an `EventSource` got until it was closed, by the page after the last event or by itself.
READ = """
new Promise((resolve) => {
  const seen = { texts: [], ids: [], last: null, errors: 0 };
  const source = new EventSource("/chat?q=%s");
  const end = (event) => { source.close(); resolve({ ...seen, last: [event.type, JSON.parse(event.data)] }); };
  source.onmessage = (event) => { seen.texts.push(JSON.parse(event.data).text); seen.ids.push(event.lastEventId); };
  source.addEventListener("complete", end);
  source.addEventListener("failed", end);
  source.onerror = () => { seen.errors += 1; if (source.readyState === EventSource.CLOSED) resolve(seen); };
})
"""


def reply(body):
    """Return the reply to the request *body*: endless for the prompt "endless"."""
    prompt = body["messages"][-1]["content"]
    return itertools.repeat("x ") if prompt == "endless" else f"You said: {prompt}"


@pytest.fixture(params=SERVERS)
def site(request, launch):
    """The port of the application, and the local server."""
    path_or_skip()
    for package in (request.param, "starlette"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    port = free_port()
    with NeuralBoxServer(reply=reply, event_interval=0.01) as server:
        launch(server, *(word.format(port=port) for word in SERVERS[request.param]))
        wait_until_listening(port)
        yield port, server


@pytest.fixture
def open_page(site, tmp_path):
    """Return a context with a page of the application, which is an error page, and so has no scripts of its own."""

    @contextlib.asynccontextmanager
    async def run():
        async with browser(tmp_path / "chromium") as page:
            await page.open(f"http://127.0.0.1:{site[0]}/")
            yield page, site[1]

    return run


async def test_event_source(open_page):
    """An `EventSource` gets the text, ids and the end; a failure; an error status; each is generated once."""
    async with open_page() as (page, server):
        seen = await page.evaluate(READ % "Hi")
        assert ("You said: Hi", "complete", 0) == ("".join(seen["texts"]), seen["last"][0], seen["errors"])
        assert [str(number + 1) for number in range(len(seen["ids"]))] == seen["ids"]
        assert {"finish_reason", "tokens_used"} == set(seen["last"][1])

        server.cut(3)
        seen = await page.evaluate(READ % "Hi")
        assert ("You said: ", "failed", 502) == ("".join(seen["texts"]), seen["last"][0], seen["last"][1]["status"])

        server.fail(402)
        assert {"texts": [], "ids": [], "last": None, "errors": 1} == await page.evaluate(READ % "Hi")
        assert 3 == len([request for request in server.requests if request.method == "POST"])


async def test_leaving(open_page):
    """Closing an `EventSource` ends the generation, before the first text and after it, and so does `abort`."""
    async with open_page() as (page, server):
        server.stall(1)
        await page.evaluate("void (window.source = new EventSource('/chat?q=Hi'))")
        await server.wait_until_async(lambda: server.in_flight == 1)
        await page.evaluate("source.close()")
        await server.wait_for_disconnect_async()

        await page.evaluate(
            "window.source = new EventSource('/chat?q=endless');"
            " new Promise((resolve) => { source.onmessage = resolve; }).then(() => source.close())"
        )
        await server.wait_for_disconnect_async(count=2)

        await page.evaluate(
            "(async () => { const controller = new AbortController();"
            " const response = await fetch('/chat?q=endless', { signal: controller.signal });"
            " await response.body.getReader().read(); controller.abort(); })()"
        )
        await server.wait_for_disconnect_async(count=3)
    assert () == server.billed


async def test_connects_again(open_page):
    """An `EventSource` whose connection breaks connects again, as browsers do, and is stopped: one generation."""
    async with open_page() as (page, server):
        # The page does not close it at the last event, so it connects again.
        errors = await page.evaluate(
            "let errors = 0, source = new EventSource('/chat?q=Hi'); new Promise((resolve) => {"
            " source.onerror = () => { errors += 1; if (source.readyState === 2) resolve(errors); }; })"
        )
    assert 2 == errors  # the end of the connection, and the 204
    assert 1 == len(server.requests)
