"""The chat page of `examples/fastapi_chat` in headless Chromium: what a person does with it, and sees."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest
from chromium import browser, path_or_skip
from documents import ROOT

pytest.importorskip("fastapi", reason="the application uses FastAPI")
pytest.importorskip("uvicorn", reason="serves the application")

pytestmark = pytest.mark.process

FOLDER = ROOT / "examples" / "fastapi_chat"
COMMAND = ("uvicorn", "--app-dir", FOLDER, "app:app", "--port", "PORT", "--log-level", "warning")
REPLIES = "[...document.querySelectorAll('.reply .text')].map(text => text.textContent)"
BUSY = "document.querySelector('[aria-busy=true]')"


@pytest.fixture
def port(start):
    """The port of the application."""
    path_or_skip()
    return start(*COMMAND)


@pytest.fixture
def open_page(port, tmp_path):
    """Return a context in which the page is open; at its end, no script may have failed."""

    @contextlib.asynccontextmanager
    async def run():
        async with browser(tmp_path / "chromium") as page:
            await page.show_as()
            await page.open(f"http://127.0.0.1:{port}/")
            yield page
            # Responses with an error status are logged as well.
            assert [] == [error for error in page.errors if "responded with a status" not in error]

    return run


async def ask(page, text):
    """Send a message with the keyboard, and wait for the end of the reply."""
    await page.wait("document.activeElement.id === 'prompt'")  # a page that has just loaded loses keys
    await page.type(text)
    await page.wait(f"document.getElementById('prompt').value === {json.dumps(text)}")
    await page.press("Enter")
    await page.wait("document.getElementById('prompt').value === ''")
    await page.wait(f"!{BUSY}")


async def test_a_conversation(open_page, server):
    """Replies are shown with their cost; each request has the whole conversation, which survives a reload."""
    async with open_page() as page:
        await ask(page, "My name is Ivan")
        await ask(page, "<b>What</b> is my name?")
        assert ["You said: My name is Ivan", "You said: <b>What</b> is my name?"] == await page.evaluate(REPLIES)

        used = [billed.tokens_used for billed in server.billed]
        assert f"{used[0]} tokens" == await page.text(".reply .note")
        assert f"{sum(used)} tokens" == await page.text("#total")
        assert "The reply is complete." == await page.text("#status")
        assert ["user", "assistant", "user"] == [turn["role"] for turn in server.requests[1].json["messages"]]

        await page.evaluate("window.isOld = true")
        await page.send("Page.reload")
        await page.wait(f"!window.isOld && document.readyState === 'complete' && {REPLIES}.length === 2")
        assert f"{sum(used)} tokens" == await page.text("#total")

        await page.click("#clear")
        assert [] == await page.evaluate(REPLIES)
        await ask(page, "New")
        assert [{"role": "user", "content": "New"}] == server.requests[2].json["messages"]


@pytest.mark.parametrize("how", ["button", "Escape"])
async def test_stop(open_page, server, how):
    """Stop keeps the text and ends the generation, which is not billed; the conversation goes on with that text."""
    async with open_page() as page:
        await page.type("endless")
        await page.press("Enter")
        await page.wait(f"{REPLIES}[0]?.length > 20")
        assert await page.evaluate(f"Boolean({BUSY})")
        await (page.click("#stop") if how == "button" else page.press("Escape"))
        await page.wait(f"!{BUSY}")

        await server.wait_for_disconnect_async()
        assert () == server.billed
        assert "Stopped" == await page.text(".reply .note")
        assert await page.evaluate("document.activeElement.id === 'prompt'")
        await ask(page, "Go on")
        assert server.requests[1].json["messages"][1]["content"].startswith("and on and on")


async def test_stop_before_the_first_text(open_page, server):
    """Stop before the first text ends the generation as well, and offers to ask again."""
    server.stall(1)
    async with open_page() as page:
        await page.type("Hello")
        await page.press("Enter")
        await server.wait_until_async(lambda: server.in_flight == 1)
        await page.click("#stop")
        await server.wait_for_disconnect_async()
        await page.wait("document.querySelector('.reply > button')")
        await page.click(".reply > button")
        await page.wait(f"{REPLIES}[0] === 'You said: Hello'")
        assert [{"role": "user", "content": "Hello"}] == server.requests[1].json["messages"]


async def test_waiting_is_in_view(open_page, server):
    """While a message waits for its reply, it is in view below a long conversation."""
    below = "document.querySelector('.mine:nth-last-child(2)').getBoundingClientRect().bottom"
    async with open_page() as page:
        server.reply_with("line\n" * 100)
        await ask(page, "Write much")
        server.stall(1)
        await page.type("Hello")
        await page.press("Enter")
        await server.wait_until_async(lambda: server.in_flight == 1)
        assert await page.evaluate(f"{below} < document.getElementById('form').getBoundingClientRect().top")


async def test_long_conversations(open_page, server):
    """A reply longer than a message may be, an empty one and more turns than a request may have end no conversation."""
    async with open_page() as page:
        server.reply_with("x" * 30_000, " ")
        await ask(page, "Write much")
        await ask(page, "Write nothing")
        assert "The reply is empty." == await page.text(".failure p")
        turns = [{"role": role, "content": "Hi"} for _ in range(60) for role in ("user", "assistant")]
        await ask(page, "Go on")
        assert "You said: Go on" == (await page.evaluate(REPLIES))[-1]
        assert ["user", "assistant", "user"] == [turn["role"] for turn in server.requests[2].json["messages"]]

        await page.evaluate(f"sessionStorage.setItem('chat', {json.dumps(json.dumps(turns))}); window.isOld = true")
        await page.send("Page.reload")
        await page.wait(f"!window.isOld && document.readyState === 'complete' && {REPLIES}.length === 60")
        await ask(page, "Still there?")
        assert "You said: Still there?" == (await page.evaluate(REPLIES))[-1]
        roles = [turn["role"] for turn in server.requests[3].json["messages"]]
        assert (["user", "assistant"] * 50)[:99] == roles


async def test_leaving_the_page(open_page, server):
    """A page that is left ends its generation."""
    async with open_page() as page:
        await page.type("endless")
        await page.press("Enter")
        await page.wait(f"{REPLIES}[0]?.length > 20")
        await page.send("Page.navigate", url="about:blank")
        await server.wait_for_disconnect_async()
    assert () == server.billed


async def test_errors(open_page, server):
    """Errors are shown where the reply would be, without details, and can be tried again, at the earliest in time."""
    async with open_page() as page:
        server.fail(401)
        await ask(page, "One")
        assert "The text could not be generated." == await page.text(".failure p")
        assert "The reply failed. The text could not be generated." == await page.text("#status")
        await page.click(".failure button")
        await page.wait(f"{REPLIES}[0] === 'You said: One' && !{BUSY}")

        server.fail(429, retry_after=847)
        await ask(page, "Two")
        await page.wait("document.querySelector('.failure button').textContent === 'Try again in 15 min'")
        assert await page.evaluate("document.querySelector('.failure button').disabled")

        server.cut(4)
        await ask(page, "Three")
        assert (await page.evaluate(REPLIES))[-1].startswith("You said: ")  # what had arrived stays
        assert 2 == await page.evaluate("document.querySelectorAll('.failure').length")
        assert "The rest of the text could not be generated." == await page.text("li:last-child .failure p")
        posts = [request.json for request in server.requests if request.json is not None]
        roles = [turn["role"] for turn in posts[-1]["messages"]]
        assert ["user", "assistant", "user"] == roles  # without the turn that failed


def test_invalid_conversations(start, server):
    """A conversation that is empty, blank, too long or of another role is refused, and nothing is sent."""
    port = start(*COMMAND)
    turn = {"role": "user", "content": "Hi"}
    for messages in ([], [{**turn, "content": " "}], [turn] * 101, [{**turn, "role": "system"}], "Hi"):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request(
                "POST", "/chat", json.dumps({"messages": messages}), {"Content-Type": "application/json"}
            )
            assert 422 == connection.getresponse().status
    assert () == server.requests


async def test_server_is_gone(open_page, server):
    """Without a connection, the page says so and stays usable."""
    async with open_page() as page:
        await page.send("Network.enable")
        offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await page.send("Network.emulateNetworkConditions", offline=True, **offline)
        await ask(page, "Hello")
        assert "The server cannot be reached." == await page.text(".failure p")
        await page.send("Network.emulateNetworkConditions", offline=False, **offline)
        await page.click(".failure button")
        await page.wait(f"{REPLIES}[0] === 'You said: Hello'")
        page.errors.clear()


async def test_keyboard(open_page, server):
    """Everything can be done with the keyboard: lines in a message, and Tab reaches each control."""
    async with open_page() as page:
        await page.type("One")
        await page.press("Enter", shift=True)
        await page.type("Two")
        await page.press("Enter")
        await page.wait(f"{REPLIES}[0] === 'You said: One\\nTwo'")
        await page.wait(f"!{BUSY}")
        reached = set()
        for _ in range(6):
            await page.press("Tab")
            reached.add(await page.evaluate("document.activeElement.id || document.activeElement.role"))
    assert {"clear", "log", "prompt", "send"} <= reached


async def test_screen_reader(open_page, server):
    """Each control has a name, the conversation is a log with a list, and the state is announced."""
    async with open_page() as page:
        await ask(page, "Hello")
        elements = await page.accessible()
    assert {
        ("heading", "Chat"),
        ("log", "Conversation"),
        ("textbox", "Your message"),
        ("button", "Send"),
        ("button", "New chat"),
    } <= set(elements)
    assert {"list", "listitem", "banner", "main", "status"} <= {role for role, _ in elements}
    assert ("StaticText", "You said: Hello") in elements  # one node, not one for each piece
    assert [] == [(role, name) for role, name in elements if role in {"button", "textbox"} and not name]


CONTRAST = """
(() => {
  const rgb = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const light = (color) => rgb(color).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" && node.parentElement ? behind(node.parentElement) : color;
  };
  return ["h1", "#total", ".mine .text", ".reply .text", ".note", ".failure p", ".failure button", "label", "#send"]
    .map((name) => {
      const node = document.querySelector(name);
      const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
      return [name, (a + 0.05) / (b + 0.05)];
    });
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, height", [(1024, 720), (360, 640), (320, 568)])
async def test_sizes_and_schemes(open_page, server, tmp_path, scheme, width, height):
    """Nothing is cut off or wider than the window, text has the contrast of WCAG AA, and controls can be tapped."""
    async with open_page() as page:
        await page.show_as(width=width, height=height, scheme=scheme)
        await ask(page, "A long word: " + "x" * 120)
        server.fail(401)
        await ask(page, "Hello")
        await page.screenshot(tmp_path / "page.png")  # pytest keeps it for a look

        assert [width, height] == await page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        assert [] == [(name, ratio) for name, ratio in await page.evaluate(CONTRAST) if ratio < 4.5]
        boxes = await page.evaluate(
            "[...document.querySelectorAll('button:not([hidden]), textarea')].map(node =>"
            " { const box = node.getBoundingClientRect(); return [box.left, box.right, box.height]; })"
        )
    assert boxes
    assert all(left >= 0 and right <= width and high >= 40 for left, right, high in boxes), json.dumps(boxes)
