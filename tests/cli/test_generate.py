"""`neuralbox generate` against a local server."""

from __future__ import annotations

import json
import subprocess

import pytest

from neuralbox_async import data_url

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
SECRET = "nb_secret_0123456789"


def body_of(server):
    """The JSON of the only request."""
    (request,) = server.requests
    return request.json


class TestPrompt:
    def test_argument(self, run, server):
        """The prompt is the argument; the text is printed with a line break at its end."""
        assert "You said: Hello wide world\n" == run("generate", "Hello wide world").out
        assert [{"role": "user", "content": "Hello wide world"}] == body_of(server)["messages"]

    @pytest.mark.parametrize("arguments", [(), ("-",)])
    def test_stdin(self, run, server, arguments):
        """The prompt is read from stdin, without the line break at its end."""
        run("generate", *arguments, stdin="\ufeffZwei\nZeilen ☃\r\n".encode())

        assert "Zwei\nZeilen ☃" == body_of(server)["messages"][0]["content"]

    @pytest.mark.parametrize(
        "stdin,expected", [(b"that\n", "this\n\nthat"), (b"", "this"), (b" \n", "this"), (None, "this")]
    )
    def test_argument_and_stdin(self, run, server, stdin, expected):
        """With an argument, what stdin has is sent below it."""
        assert f"You said: {expected}\n" == run("generate", "this", stdin=stdin).out

    def test_file_on_stdin(self, start, server, tmp_path):
        """So it is with a file, whatever it ends with."""
        (tmp_path / "in.txt").write_bytes("\ufeffZwei\r\nZeilen\r\n".encode())
        with (tmp_path / "in.txt").open("rb") as file:
            assert "You said: Summarise:\n\nZwei\r\nZeilen\n" == start("generate", "Summarise:", stdin=file).wait().out

    def test_slow_stdin(self, start, server):
        """When nothing arrives from a pipe, a line explains what is awaited."""
        process = start("generate", "this", stdin=subprocess.PIPE)
        process.read_stderr_until(b"waiting for stdin")
        process.popen.stdin.write(b"that")

        assert (0, "You said: this\n\nthat\n") == ((done := process.wait()).status, done.out)

    @pytest.mark.parametrize(
        "arguments,stdin,expected",
        [
            ((), b"", "prompt is empty"),
            (("-",), b"\n", "prompt is empty"),
            (("",), b"Hi", "prompt is empty"),
            ((), b"caf\xe9", "not valid UTF-8: byte 3"),
        ],
    )
    def test_invalid(self, run, server, arguments, stdin, expected):
        """A prompt that is empty or not UTF-8 is not sent."""
        done = run("generate", *arguments, stdin=stdin)

        assert (2, "") == (done.status, done.out)
        assert expected in done.error_line
        assert () == server.requests

    def test_stdin_closed(self, run, server):
        """Without an argument and with stdin closed, there is no prompt."""
        assert "There is no prompt" in run("generate", stdin=None).error_line
        assert () == server.requests

    def test_undecodable_argument(self, run, server):
        """An argument that is not UTF-8 is refused before anything is sent."""
        done = run("generate", "caf\udce9")

        assert 2 == done.status
        assert "surrogates" in done.error_line
        assert () == server.requests


class TestRequest:
    def test_options(self, run, server):
        """Each option is sent under its own name."""
        options = ("--model", "gemini-3-pro", "--system", "Briefly.", "--temperature", "0", "--max-tokens", "7")

        assert 0 == run("generate", "Hi", *options).status
        expected = {
            "model": "gemini-3-pro",
            "messages": [{"role": "user", "content": "Hi"}],
            "system": "Briefly.",
            "temperature": 0.0,
            "max_tokens": 7,
        }
        assert expected == {name: body_of(server).get(name) for name in expected}

    def test_defaults(self, run, server):
        """Without options, only the model is set."""
        run("generate", "Hi")

        sent = {name: value for name, value in body_of(server).items() if value is not None and value is not False}
        assert {"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]} == sent

    def test_images(self, run, server, tmp_path):
        """Images are sent in their order before the prompt."""
        first, second = tmp_path / "a.png", tmp_path / "b"
        first.write_bytes(PNG)
        second.write_bytes(b"GIF89a" + bytes(8))

        assert 0 == run("generate", "Look", "--image", str(first), "--image", str(second)).status
        (message,) = body_of(server)["messages"]
        assert [
            {"type": "image_url", "image_url": {"url": data_url(first)}},
            {"type": "image_url", "image_url": {"url": data_url(second)}},
            {"type": "text", "text": "Look"},
        ] == message["content"]

    @pytest.mark.parametrize("options,streams", [((), False), (("--no-stream",), False), (("--stream",), True)])
    def test_streaming(self, run, server, options, streams):
        """Without a terminal, the text is streamed only with --stream; it is the same text."""
        assert "You said: Hi\n" == run("generate", "Hi", *options).out
        assert streams == bool(body_of(server).get("stream"))

    @pytest.mark.usefixtures("short_poll_interval")
    def test_pending(self, run, serve):
        """A generation that is pending is polled until it is completed."""
        server = serve(pending_models=["slow"], pending_seconds=0.01)

        assert "You said: Hi\n" == run("generate", "Hi", "--model", "slow").out
        assert 1 == len(server.billed)

    def test_local(self, run, server):
        """A local call needs no API key and contacts no other server."""
        done = run("generate", "Hi", "--local")

        assert (0, "You said: Hi\n", "") == (done.status, done.out, done.err)
        assert () == server.requests


class TestOutput:
    @pytest.mark.parametrize(
        "reply,output", [("a\n", "a\n"), ("a\n\n", "a\n\n"), ("a", "a\n"), ("\x1b[1mä", "\x1b[1mä\n")]
    )
    @pytest.mark.parametrize("option", ["--stream", "--no-stream"])
    def test_text(self, run, serve, reply, output, option):
        """A pipe gets the text unchanged, with a line break at its end."""
        serve(reply=reply)

        assert (output, "") == ((done := run("generate", "Hi", option)).out, done.err)

    def test_json(self, run, server):
        """One JSON object has every attribute of the generation."""
        done = run("generate", "Grüße", "--json")
        printed = json.loads(done.out)

        (billed,) = server.billed
        assert {"status": "completed", "model": "gpt-5", "content": "You said: Grüße"}.items() <= printed.items()
        assert billed.id == printed["id"]
        assert server.balance == printed["balance_remaining"]
        assert 1_000_000 - server.balance == printed["tokens_used"]
        assert {"prompt_tokens", "completion_tokens", "total_tokens"} == set(printed["usage"])
        assert printed["created_at"].endswith("+00:00")
        assert printed["url"] is None
        assert "raw" not in printed
        assert "Grüße" in done.out
        assert 1 == done.out.count("\n")

    def test_json_stream(self, run, server):
        """A stream is printed as one JSON object per event, each with its type."""
        events = [json.loads(line) for line in run("generate", "Hi", "--json", "--stream").out.splitlines()]

        (billed,) = server.billed
        assert {"type": "generation_start", "id": billed.id, "model": "gpt-5"} == events[0]
        assert ["You ", "said: ", "Hi"] == [event["delta"] for event in events if event["type"] == "content_delta"]
        assert {"type": "generation_end", "id": billed.id, "balance_remaining": server.balance}.items() <= events[
            -1
        ].items()

    def test_unknown_event(self, run, server):
        """An event of an unknown type is printed as it was received."""
        event = {"type": "weather", "rain": [1, 2]}
        end = {"type": "generation_end", "id": 1}
        stream = "".join(f"data: {json.dumps(data)}\n\n" for data in (event, end))
        server.fail(200, body=stream, headers={"Content-Type": "text/event-stream"})

        assert event == json.loads(run("generate", "Hi", "--json", "--stream").out.splitlines()[0])

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
    def test_encoding(self, start, serve, encoding, monkeypatch):
        """The output is UTF-8 whatever the locale; a lone surrogate is U+FFFD."""
        serve(reply="Grüße ☃ \ud83d")
        monkeypatch.setenv("PYTHONIOENCODING", encoding)

        done = start("generate", "Hi").wait()

        assert (0, "Grüße ☃ \N{REPLACEMENT CHARACTER}\n", "") == (done.status, done.out, done.err)


class TestErrors:
    @pytest.mark.parametrize(
        "options,expected",
        [
            (("--temperature", "9"), "'--temperature': 9.0 is not in the range"),
            (("--temperature", "nan"), "temperature must be a number from 0.0 to 2.0"),
            (("--temperature", "warm"), "'warm' is not a valid float"),
            (("--max-tokens", "0"), "--max-tokens"),
            (("--timeout", "0"), "--timeout"),
            (("--timeout", "nan"), "timeout must be a positive number of seconds"),
            (("--model", ""), "model must be a model slug"),
            (("--image", "no such.png"), "'no such.png' does not exist"),
            (("--image", "."), "'.' is a directory"),
            (("--image", __file__), "is not an image"),
        ],
    )
    def test_invalid_option(self, run, server, options, expected):
        """An invalid value is reported in one line before anything is sent."""
        done = run("generate", "Hi", *options)

        assert (2, "") == (done.status, done.out)
        assert expected in done.error_line
        assert () == server.requests

    @pytest.mark.parametrize("arguments", [("What is this?", "--image", "-"), ("--image", "-", "What is this?")])
    def test_image_on_stdin(self, run, server, arguments):
        """`--image -` reads the image from stdin, which is then no part of the prompt."""
        assert 0 == run("generate", *arguments, stdin=PNG).status
        (message,) = server.requests[0].json["messages"]
        assert [{"url": data_url(PNG)}, "What is this?"] == [
            part.get("image_url", part.get("text")) for part in message["content"]
        ]

    @pytest.mark.parametrize(
        "arguments,stdin,expected",
        [
            (("--image", "-"), PNG, "pass the prompt as an argument"),
            (("-", "--image", "-"), PNG, "pass the prompt as an argument"),
            (("Hi", "--image", "-"), b"text", "stdin is not an image"),
            (("Hi", "--image", "-"), None, "stdin is not an image"),
            (("Hi", "--image", "-", "--image", "-"), PNG, "only one image"),
        ],
    )
    def test_invalid_image_on_stdin(self, run, server, arguments, stdin, expected):
        """Stdin has one image or the prompt, and nothing else is sent."""
        done = run("generate", *arguments, stdin=stdin)

        assert (2, ()) == (done.status, server.requests)
        assert expected in done.error_line

    def test_unreadable_image(self, run, server, tmp_path, monkeypatch):
        """An image that is deleted before it is read is reported in one line."""
        image = tmp_path / "a.png"
        image.write_bytes(PNG)
        monkeypatch.setattr("click.Path.convert", lambda _self, value, *_: image.unlink() or value)

        assert "cannot be read: No such file" in run("generate", "Hi", "--image", str(image)).error_line
        assert () == server.requests

    def test_no_key(self, run):
        """Without an API key, one line explains how to set it."""
        done = run("generate", "Hi")

        assert (2, "") == (done.status, done.out)
        assert "NEURALBOX_API_KEY" in done.error_line
        assert "--local" in done.error_line

    @pytest.mark.parametrize("key", [f"{SECRET}\n{SECRET}", f" {SECRET}", f"{SECRET}é"])
    def test_invalid_key(self, run, monkeypatch, key):
        """An invalid API key is reported by the name of its variable, and not shown."""
        monkeypatch.setenv("NEURALBOX_API_KEY", key)
        done = run("generate", "Hi")

        assert 2 == done.status
        assert "NEURALBOX_API_KEY must be" in done.error_line
        assert SECRET not in done.err

    def test_invalid_url(self, run, monkeypatch):
        """An invalid URL is reported by the name of its variable."""
        monkeypatch.setenv("NEURALBOX_API_KEY", SECRET)
        monkeypatch.setenv("NEURALBOX_BASE_URL", "http://example.com/api")
        done = run("generate", "Hi")

        assert 2 == done.status
        assert "NEURALBOX_BASE_URL must be https" in done.error_line
        assert SECRET not in done.err

    @pytest.mark.parametrize(
        "status,expected",
        [
            (401, "401 not_authenticated"),
            (402, "402 insufficient_tokens"),
            (404, "404"),
            (422, "422"),
            (502, "it may have been billed"),
        ],
    )
    @pytest.mark.parametrize("option", ["--stream", "--no-stream"])
    def test_api_error(self, run, server, status, expected, option):
        """An error of the API is reported in one line."""
        server.fail(status, times=3)
        done = run("generate", "Hi", option)

        assert (1, "") == (done.status, done.out)
        assert expected in done.error_line
        assert server.api_key not in done.err

    def test_rate_limit(self, run, server):
        """The error of a rate limit has the time to wait."""
        server.fail(429, retry_after=847)

        assert "try again in 847 s" in run("generate", "Hi").error_line

    def test_echoed_key(self, run, server):
        """An API key in a response is not shown, nor are its line breaks and escape sequences."""
        server.fail(401, message=f"No such key:\n\x1b[31m{server.api_key}\x07")
        done = run("generate", "Hi")

        assert done.error_line.endswith("No such key: \ufffd[31m***\ufffd")

    def test_no_connection(self, run, server):
        """A connection failure is reported in one line, which mentions no bill."""
        server.close()
        done = run("generate", "Hi", "--timeout", "0.9")

        assert (1, "") == (done.status, done.out)
        assert "the connection failed" in done.error_line
        assert "billed" not in done.error_line

    @pytest.mark.parametrize("option", ["--stream", "--no-stream"])
    def test_timeout(self, run, serve, option):
        """A call that times out may have been billed."""
        server = serve(latency=30, stop_on_disconnect=True)
        done = run("generate", "Hi", option, "--timeout", "0.1")

        assert (1, "") == (done.status, done.out)
        assert "it may have been billed" in done.error_line
        server.wait_for_disconnect()

    def test_failed(self, run, serve):
        """A failed generation is an error, and was not billed."""
        serve(failing_models=["gpt-5"])
        done = run("generate", "Hi")

        assert (1, "") == (done.status, done.out)
        assert "policy violation" in done.error_line
        assert done.error_line.endswith(" was not billed")

    @pytest.mark.parametrize("how", ["eof", "close", "reset"])
    def test_interrupted_stream(self, run, server, how):
        """The text of an interrupted stream stays, and the error explains how to retrieve the whole text."""
        server.cut(3, how=how, finish=True)
        server.fail(403, method="GET")
        done = run("generate", "one two three", "--stream")

        assert (1, "You said: \n") == (done.status, done.out)
        (billed,) = server.billed
        assert f"`neuralbox retrieve {billed.id}`" in done.error_line
        assert "You said: one two three\n" == run("retrieve", billed.id).out

    def test_failed_stream(self, run, server):
        """The text of a stream whose generation failed stays, and the generation was not billed."""
        server.cut(3)
        done = run("generate", "one two three", "--stream")

        assert (1, "You said: \n", ()) == (done.status, done.out, server.billed)
        assert done.error_line.endswith(" was not billed")

    def test_interrupted_json_stream(self, run, server):
        """The events of an interrupted stream are complete lines."""
        server.cut(3)
        done = run("generate", "one two three", "--json", "--stream")

        assert 1 == done.status
        events = [json.loads(line) for line in done.out.splitlines()]
        assert ["generation_start", "content_delta", "content_delta"] == [event["type"] for event in events]
        assert events[0]["id"] in done.error_line

    def test_recovered_stream(self, run, server):
        """A stream that was interrupted after the generation was completed is recovered without a message."""
        server.cut(3, finish=True)
        done = run("generate", "one two three", "--stream")

        assert (0, "You said: one two three\n", "") == (done.status, done.out, done.err)

    def test_malformed_response(self, run, server):
        """The text of a malformed response is printed: it is billed."""
        server.fail(200, body={"id": "gen_1", "status": ["completed"], "content": "The text."})
        done = run("generate", "Hi")

        assert (1, "The text.\n") == (done.status, done.out)
        assert "$.status" in done.error_line
        assert "neuralbox retrieve gen_1" in done.error_line
