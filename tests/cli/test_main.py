"""The command itself: its start, its help, its way to fail."""

from __future__ import annotations

import io
import sys

import pytest

from neuralbox_async import __version__

MAIN = "from neuralbox_async.__main__ import main; main()"
# What is in sys.modules as None cannot be found and not be imported.
LACKING = "import sys; sys.modules[sys.argv.pop(1)] = None; " + MAIN
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
    """The help, which is shown also when nothing is asked for, lists the commands, with examples."""
    done = run(*arguments)

    assert (0, "") == (done.status, done.err)
    for wanted in ("batch  ", "demo  ", "generate  ", "retrieve  ", "serve  ", "Examples:", "NEURALBOX_API_KEY"):
        assert wanted in done.out


@pytest.mark.parametrize("command", ["batch", "generate", "retrieve", "serve"])
def test_help_of_a_command(run, command):
    """The help of a command has examples, one a line."""
    done = run(command, "--help")

    assert 0 == done.status
    assert f"\n  Examples:\n    neuralbox {command}" in done.out
    assert "\b" not in done.out


def test_module(start):
    """`python -m neuralbox_async` is the command."""
    done = start("--version").end()

    assert (0, f"neuralbox, version {__version__}\n", "") == (done.status, done.out, done.err)


def test_light_start(start):
    """The help needs neither aiohttp nor rich, nor anything else of the SDK's that is slow to load."""
    done = start("generate", "--help", command=(sys.executable, "-c", LOADED)).end()

    assert 0 == done.status
    assert {"click", "neuralbox_async"} <= set(done.err.split())
    assert set() == set(done.err.split()) & {"aiohttp", "rich", "cattrs", "neuralbox_sync", "pytest"}


@pytest.mark.parametrize("lacking", ["click", "rich"])
@pytest.mark.parametrize("argument", ["--version", "demo"])
def test_without_the_extra(start, lacking, argument):
    """Without its packages the command says in one line what to install."""
    done = start(lacking, argument, command=(sys.executable, "-c", LACKING)).end()

    assert (1, "") == (done.status, done.out)
    assert "pip install 'neuralbox[cli]'" in done.line


@pytest.mark.parametrize(
    "arguments,wanted",
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
        (("demo", "--concurrency", "many"), "--concurrency"),
    ],
)
def test_wrong_call(run, arguments, wanted):
    """Whoever calls the command wrongly is told in one line what is wrong, and where the help is."""
    done = run(*arguments)

    assert (2, "") == (done.status, done.out)
    assert wanted in done.line
    assert "--help" in done.line


def test_other_stdout(run, monkeypatch):
    """Where stdout is none of the operating system's, as in notebooks, it is written to as it is."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    done = run("--version")

    assert 0 == done.status
    assert __version__ in sys.stdout.getvalue()
