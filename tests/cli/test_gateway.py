"""`neuralbox gateway` in subprocesses."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import signal
import threading
from urllib.parse import urlsplit

import psutil
import pytest
from gateways import COMPLETION, HI, TOKEN, check_form

CHAT = json.dumps({"model": "gpt-5", "messages": HI})


@pytest.fixture
def gateway(start):
    """Return a function that starts `neuralbox gateway` on a free port, and returns the process and `send`."""

    def gateway(*options):
        process = start("gateway", "--port", "0", *options)
        printed = process.read_until(b"to stop it.\n").decode()
        lines = [line for line in printed.splitlines() if line.startswith("  export ")]
        exports = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        assert ["OPENAI_BASE_URL", "OPENAI_API_KEY"] == list(exports)
        url = urlsplit(exports["OPENAI_BASE_URL"])

        def send(method="POST", path="/chat/completions", body=CHAT, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", url.port, timeout=60)
            connection.request(method, url.path + path, body, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            result = response.status, json.loads(response.read())
            connection.close()
            return result

        return process, send

    return gateway


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_until_a_signal(server, gateway, number):
    """The gateway runs until a signal, and then exits with status 0; the log has a line for each request."""
    process, send = gateway()
    status, body = send()
    process.popen.send_signal(number)

    assert 200 == status
    check_form(body, COMPLETION)
    assert (0, "") == ((done := process.wait()).status, done.out)
    line = r"\d\d:\d\d:\d\d POST /v1/chat/completions 200 gpt-5 \d+\.\d{3} s 2 tokens gen_\w+\n"
    assert re.fullmatch(line, done.err)


@pytest.mark.process
def test_local(gateway):
    """--local needs no key and no server, and --quiet logs nothing."""
    process, send = gateway("--local", "--quiet")
    status, body = send()
    process.popen.send_signal(signal.SIGINT)

    assert (200, "You said: Hi") == (status, body["choices"][0]["message"]["content"])
    assert (0, "") == ((done := process.wait()).status, done.err)


@pytest.mark.process
@pytest.mark.parametrize("source", ["file", "variable"])
def test_token(server, gateway, folder, monkeypatch, source):
    """The token is read from a file or a variable, and is neither printed nor logged."""
    (folder / "token.txt").write_text(f"{TOKEN}\n", encoding="utf-8")
    if source == "variable":
        monkeypatch.setenv("NEURALBOX_GATEWAY_TOKEN", TOKEN)
    process, send = gateway("--host", "0.0.0.0", *(["--token-file", "token.txt"] if source == "file" else []))
    statuses = [send()[0], send(Authorization=f"Bearer {TOKEN}")[0]]
    process.popen.send_signal(signal.SIGINT)
    done = process.wait()

    assert [401, 200] == statuses
    assert TOKEN not in done.out + done.err


@pytest.mark.process
def test_settings_of_variables(server, gateway, monkeypatch):
    """Each option can be set by a variable; an option has precedence."""
    settings = {"BUDGET": "2", "MAX_CONCURRENCY": "1", "ALLOW_HOST": "ai.example b.example", "TIMEOUT": "50"}
    for name, value in {
        **settings,
        "PORT": "1",
        "MAX_WAIT": "0.5",
        "SHUTDOWN_TIMEOUT": "1",
        "WRITE_TIMEOUT": "9",
    }.items():
        monkeypatch.setenv(f"NEURALBOX_GATEWAY_{name}", value)
    process, send = gateway()
    statuses = [send(Host=host)[0] for host in ("b.example", "c.example", "ai.example")]
    process.popen.send_signal(signal.SIGINT)

    assert [200, 421, 429] == statuses  # a call of gpt-5 costs 2
    assert 0 == process.wait().status


@pytest.mark.process
@pytest.mark.signals
def test_second_signal(server, gateway):
    """A call that runs has time to finish; a second signal ends it."""
    server.delay(60)
    process, send = gateway()
    results = []
    thread = threading.Thread(target=lambda: results.append(send()))
    thread.start()
    server.wait_until(lambda: server.in_flight == 1)
    process.popen.send_signal(signal.SIGTERM)
    server.wait_until(lambda: _refuses(process))
    assert process.popen.poll() is None
    process.popen.send_signal(signal.SIGTERM)
    done = process.wait()
    thread.join(60)

    assert 0 == done.status
    assert "may have been billed" in done.err


def _refuses(process):
    """Return whether the gateway listens no more."""
    return not [c for c in psutil.Process(process.popen.pid).net_connections() if c.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize(
    "options, message",
    [
        (("--host", "0.0.0.0"), "the token must be set, because 0.0.0.0 is not on loopback"),
        (("--cors-origin", "*"), "--cors-origin must be origins such as"),
        (("--allow-host", "https://x"), "--allow-host must be names of hosts"),
        (("--token-file", "missing.txt"), "'missing.txt' does not exist"),
        (("--token-file", "short.txt"), "the token must be at least 16 characters"),
        (("--token-file", "latin.txt"), "latin.txt is not text in UTF-8"),
        (("--host", " "), "--host must be a name or address of this machine"),
    ],
)
def test_usage_errors(run, folder, options, message):
    """An invalid setting is one line, and nothing is served."""
    (folder / "short.txt").write_text("short", encoding="utf-8")
    (folder / "latin.txt").write_bytes(b"\xe4" * 20)
    done = run("gateway", *options)

    assert (2, "") == (done.status, done.out)
    assert message in done.error_line


def test_without_a_key(run):
    """Without a key of the API there is no gateway."""
    done = run("gateway", "--port", "0")

    assert 2 == done.status
    assert "NEURALBOX_API_KEY" in done.error_line


def test_port_in_use(run, server):
    """A port in use is reported in one line."""
    done = run("gateway", "--port", str(server.port))

    assert (1, "") == (done.status, done.out)
    assert "address already in use" in done.error_line


@pytest.mark.process
def test_closed_log(server, gateway):
    """The gateway goes on when nobody reads its log."""
    process, send = gateway()
    process.popen.stderr.close()
    statuses = [send()[0] for _ in range(2)]
    process.popen.send_signal(signal.SIGINT)

    assert [200, 200] == statuses
    assert 0 == process.popen.wait(60)
