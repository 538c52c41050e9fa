"""The command itself: start, help and usage errors."""

from __future__ import annotations

import io
import sys

import pytest

from neuralbox_async import __version__

MAIN = "from neuralbox_async.__main__ import main; main()"
# A module that is None in sys.modules cannot be imported.
MISSING = "import sys; sys.modules[sys.argv.pop(1)] = None; " + MAIN
LOADED = f"""
import atexit, sys
atexit.register(lambda: print(*{{name.partition(".")[0] for name in sys.modules}}, file=sys.stderr))
{MAIN}
"""


def test_version(run):
    """The version is that of the package."""
    done = run("--version")

    assert (0, "") == (done.status, done.err)
    assert __version__ in done.out


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ()])
def test_help(run, arguments):
    """The help lists the commands and has examples; it is also shown without arguments."""
    done = run(*arguments)

    assert (0, "") == (done.status, done.err)
    for expected in ("batch  ", "demo  ", "generate  ", "retrieve  ", "serve  ", "Examples:", "NEURALBOX_API_KEY"):
        assert expected in done.out


@pytest.mark.parametrize("command", ["batch", "demo", "generate", "retrieve", "serve"])
def test_help_of_a_command(run, command):
    """The help of a command has examples, one per line."""
    done = run(command, "--help")

    assert 0 == done.status
    assert f"\n  Examples:\n    neuralbox {command}" in done.out
    assert "\b" not in done.out


def test_module(start):
    """`python -m neuralbox_async` is the command."""
    done = start("--version").wait()

    assert (0, f"neuralbox, version {__version__}\n", "") == (done.status, done.out, done.err)


def test_light_start(start):
    """The help imports no package that is slow to load."""
    done = start("generate", "--help", command=(sys.executable, "-c", LOADED)).wait()

    assert 0 == done.status
    assert {"click", "neuralbox_async"} <= set(done.err.split())
    assert set() == set(done.err.split()) & {"aiohttp", "rich", "cattrs", "neuralbox_sync", "pytest"}


@pytest.mark.parametrize("missing", ["click", "rich"])
@pytest.mark.parametrize("argument", ["--version", "demo"])
def test_without_the_extra(start, missing, argument):
    """Without its extra, the command explains in one line what to install."""
    done = start(missing, argument, command=(sys.executable, "-c", MISSING)).wait()

    assert (1, "") == (done.status, done.out)
    assert "pip install 'neuralbox[cli]'" in done.error_line


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (("genrate",), "No such command 'genrate'"),
        (("--verbose",), "--verbose"),
        (("generate", "--verbose", "Hi"), "--verbose"),
        (("generate", "Hi", "there"), "there"),
        (("retrieve",), "Missing argument 'ID'"),
        (("batch", "nowhere.txt", "--bugdet", "5"), "--bugdet"),
        (("serve", "--port", "65536"), "--port"),
        (("serve", "--api-key", ""), "--api-key"),
        (("serve", "--api-key", "nb key"), "--api-key"),
        (("serve", "--event-interval", "nan"), "event_interval must be at least 0"),
        (("demo", "--count", "0"), "--count"),
        (("demo", "--max-concurrency", "many"), "--max-concurrency"),
    ],
)
def test_usage_error(run, arguments, expected):
    """A usage error is one line, which refers to the help."""
    done = run(*arguments)

    assert (2, "") == (done.status, done.out)
    assert expected in done.error_line
    assert "--help" in done.error_line


def test_other_stdout(run, monkeypatch):
    """Stdout may be an object without a file descriptor, as in notebooks."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    done = run("--version")

    assert 0 == done.status
    assert __version__ in sys.stdout.getvalue()


@pytest.mark.parametrize("command", ["balance", "models", "price gpt-5", "history", "retrieve gen_1"])
def test_no_key(run, command):
    """Without a key, the advice has no option that the command does not have."""
    done = run(*command.split(), stdin=b"Hi\n")

    assert 2 == done.status
    assert "neuralbox: no API key: set NEURALBOX_API_KEY" == done.error_line


def test_no_key_but_local(run):
    """Without a key, the advice has --local if the command has it."""
    assert run("generate", "Hi").error_line.endswith("or use --local, which needs none")
