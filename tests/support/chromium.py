"""Headless Chromium, driven by the Chrome DevTools Protocol over aiohttp: what a person does on a page, and sees."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time

import aiohttp
import pytest

TIMEOUT = 60.0  # seconds
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# No sandbox: the tests may run as root in a container. Nothing that connects to other hosts.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-port=0",
)
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, "")}
SHIFT = 8


def path_or_skip():
    """Return the path of Chromium; skip the test if there is none, or NEURALBOX_TEST_BROWSER is empty."""
    path = os.environ.get("NEURALBOX_TEST_BROWSER", next(filter(None, map(shutil.which, NAMES)), ""))
    if not path:
        pytest.skip("Chromium is not installed")
    return path


class ProtocolError(Exception):
    """The browser refused a command."""


class Page:
    """A page of a browser; *errors* has the exceptions of its scripts and what it could not load."""

    def __init__(self, socket):
        self._socket, self._ids = socket, itertools.count(1)
        self._replies = {}
        self.errors = []

    async def read(self):
        """Read what the browser sends, until it ends."""
        async for message in self._socket:
            content = json.loads(message.data)
            if "id" in content:
                self._replies.pop(content["id"]).set_result(content)
            elif content["method"] == "Runtime.exceptionThrown":
                self.errors.append(content["params"]["exceptionDetails"].get("exception", {}).get("description"))
            elif content["method"] == "Log.entryAdded" and content["params"]["entry"]["level"] == "error":
                self.errors.append(content["params"]["entry"]["text"])

    async def send(self, method, **params):
        """Send a command of the protocol and return its result."""
        number = next(self._ids)
        self._replies[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        reply = await asyncio.wait_for(self._replies[number], TIMEOUT)
        if "error" in reply:
            raise ProtocolError(method, reply["error"])
        return reply["result"]

    async def open(self, url):
        """Load *url*."""
        for domain in ("Runtime", "Log", "Page"):
            await self.send(f"{domain}.enable")
        await self.send("Page.navigate", url=url)
        await self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def evaluate(self, expression):
        """Return the value of a JavaScript expression, a promise included."""
        result = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait(self, condition):
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(ProtocolError):  # the page is being replaced
                if await self.evaluate(f"Boolean({condition})"):
                    return
            assert time.monotonic() < deadline, f"never true: {condition}"
            await asyncio.sleep(0.02)

    async def text(self, selector):
        """Return the visible text of an element, or None if there is none."""
        return await self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText")

    async def type(self, text):
        """Type *text* into the element that has the focus."""
        await self.send("Input.insertText", text=text)

    async def press(self, key, *, shift=False):
        """Press and release a key."""
        code, character = KEYS[key]
        options = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": SHIFT if shift else 0}
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=character, **options)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **options)

    async def click(self, selector):
        """Click in the middle of an element."""
        name = json.dumps(selector)
        box = await self.evaluate(
            f"(() => {{ const box = document.querySelector({name}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def show_as(self, *, width=1024, height=720, scheme="light"):
        """Set the size of the window and the colour scheme."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def screenshot(self, path):
        """Write a picture of the page."""
        data = (await self.send("Page.captureScreenshot", format="png"))["data"]
        path.write_bytes(base64.b64decode(data))

    async def accessible(self):
        """Return role and name of each element that a screen reader reads."""
        nodes = (await self.send("Accessibility.getFullAXTree"))["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]


@contextlib.asynccontextmanager
async def browser(folder):
    """Run Chromium with its data in *folder*, and yield its page."""
    command = [path_or_skip(), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = await _port_of(process, folder)
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/json/list") as response,
            ):
                (url,) = (t["webSocketDebuggerUrl"] for t in await response.json() if t["type"] == "page")
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    page = Page(socket)
                    reading = asyncio.create_task(page.read())
                    yield page
                    await socket.close()
                    await reading
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


async def _port_of(process, folder):
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return int((folder / "DevToolsActivePort").read_text().splitlines()[0])
        await asyncio.sleep(0.05)
    pytest.fail("Chromium does not start")
