"""`neuralbox demo`: show the SDK at work with a local server. It contacts no other server and costs nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import click

from neuralbox_async import AsyncNeuralBox, Generation, __version__
from neuralbox_async._cli.terminal import console, cost_facts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from neuralbox_async.testing import NeuralBoxServer

_LATENCY: Final = 0.25  # seconds; without latency, concurrency would look useless
_EVENT_INTERVAL: Final = 0.045  # seconds between the events of the stream: slow enough to watch
_MODEL: Final = "claude-sonnet-4.5"
_OTHER_FILES: Final = 60  # files that the process has open besides its connections
_INDENT: Final = "   "

_HAIKU: Final = "Write a haiku about a river"
_SENTENCE: Final = "Describe in one sentence how blocking code can use an async SDK"
_STORY: Final = "Tell a very short story about a lighthouse"
_REPLIES: Final = {
    _HAIKU: "Under the old bridge\nthe river counts the seasons,\nforgetting each one.",
    _STORY: (
        "The lighthouse keeper had not seen a ship for nine years.\n"
        "Each evening he lit the lamp all the same, and wrote\n"
        "“nothing to report” into the book.\n"
        "In the tenth year a sailor knocked, and thanked him\n"
        "for every one of those nights: “We all steered by it.”"
    ),
    _SENTENCE: "It calls plain functions; an event loop in another thread does the work.",
}


@click.command(short_help="Show the SDK at work with a local server.")
@click.option(
    "--count",
    default=200,
    show_default=True,
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Number of generations in the last part.",
)
@click.option(
    "-c",
    "--max-concurrency",
    default=200,
    show_default=True,
    type=click.IntRange(1, 5_000),
    metavar="N",
    help="Maximum number of them in flight.",
)
def demo(*, count: int, max_concurrency: int) -> None:
    """
    Show the SDK at work: a generation, a live stream, a blocking call, and many concurrent generations.

    A temporary local server stands in for the API. No other server is contacted, no API key is needed, and nothing is
    billed.

    \b
    Examples:
      neuralbox demo
      neuralbox demo --count 1000 --max-concurrency 500
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    from neuralbox_async.testing import NeuralBoxServer  # not above: it imports aiohttp

    concurrency = _allow_connections(min(count, max_concurrency))
    with NeuralBoxServer(reply=_reply, latency=_LATENCY, event_interval=_EVENT_INTERVAL, balance=10_000_000) as server:
        try:
            anyio.run(_Demo(server, console(sys.stdout), count=count, concurrency=concurrency).show)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the errors of concurrent calls are alike: one is enough


def _reply(request: dict[str, Any]) -> str:
    prompt = request["messages"][-1]["content"]
    return _REPLIES.get(prompt, f"The answer to “{prompt}”.")


def _allow_connections(wanted: int) -> int:
    """Raise the limit of open files for *wanted* connections; return how many it allows (both ends are here)."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 2 * wanted + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= files:
        return wanted
    files = files if hard == resource.RLIM_INFINITY else min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, (files - _OTHER_FILES) // 2)


class _Demo:
    """The parts of the demonstration, and their output on *console*."""

    def __init__(self, server: NeuralBoxServer, console: Console, *, count: int, concurrency: int) -> None:
        self._server = server
        self._console = console
        self._count = count
        self._concurrency = concurrency
        self._parts = 0

    async def show(self) -> None:
        """Show the parts one after the other."""
        started = time.perf_counter()
        self._write(f"neuralbox {__version__}", "bold")
        self._write(f"A local server stands in for the API at {self._server.base_url}")
        self._write("No other server is contacted, and nothing is billed.", "dim")
        key, url = self._server.api_key, self._server.base_url
        async with AsyncNeuralBox(key, base_url=url, max_connections=self._concurrency) as client:
            await self._show_generation(client)
            await self._show_stream(client)
            await self._show_blocking_call()
            await self._show_concurrency(client)
        self._write_summary(time.perf_counter() - started)

    # -------------------------------------------------------------------------------------------------------- the parts

    async def _show_generation(self, client: AsyncNeuralBox) -> None:
        self._title("A generation", f'await client.generate("{_MODEL}", "{_HAIKU}")')
        started = time.perf_counter()
        generation = await client.generate(_MODEL, _HAIKU)
        elapsed = time.perf_counter() - started
        with self._quoted() as write:
            write(generation.content)
        self._write_result(elapsed, *cost_facts(generation), str(generation.id))

    async def _show_stream(self, client: AsyncNeuralBox) -> None:
        self._title(
            "A live stream", "async with client.stream(...) as stream:", "    async for text in stream.text_stream: ..."
        )
        arrivals: list[float] = []
        started = time.perf_counter()
        async with client.stream(_MODEL, _STORY) as stream:
            with self._quoted() as write:
                async for text in stream.text_stream:
                    arrivals.append(time.perf_counter() - started)
                    write(text)
        elapsed = time.perf_counter() - started
        self._write_result(
            elapsed, f"{len(arrivals)} events, the first after {arrivals[0]:.2f} s", *cost_facts(stream.generation)
        )

    async def _show_blocking_call(self) -> None:
        self._title(
            "A blocking call in a thread; the event loop stays free",
            "with neuralbox_sync.NeuralBox() as client:",
            f'    client.generate("{_MODEL}", ...)',
        )
        ticker = _Ticker()
        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ticker.run)
            generation = await anyio.to_thread.run_sync(_generate_blocking, self._server.api_key, self._server.base_url)
            tasks.cancel_scope.cancel()
            elapsed = time.perf_counter() - started
            with self._quoted() as write:
                write(generation.content)
            self._write_result(elapsed, f"meanwhile a task on the event loop ran {ticker.ticks} times")

    async def _show_concurrency(self, client: AsyncNeuralBox) -> None:
        title = f"{self._count:,} generations, {self._concurrency:,} concurrently"
        self._title(title, "async with anyio.create_task_group() as tasks: ...")
        self._write("")
        started = time.perf_counter()
        with self._progress() as progress:
            bar = progress.add_task("", total=self._count)
            await _generate_all(client, self._count, self._concurrency, lambda: progress.advance(bar))
        elapsed = time.perf_counter() - started
        sequential = f"one by one: {self._count * _LATENCY:,.0f} s"
        self._write_result(
            elapsed,
            f"{self._count / elapsed:,.0f} per second · {self._server.peak_in_flight:,} in flight · {sequential}",
        )

    # ------------------------------------------------------------------------------------------------ --- output

    def _write(self, text: str, style: str = "", end: str = "\n") -> None:
        self._console.print(text, style=style, end=end)

    def _title(self, title: str, *code: str) -> None:
        self._parts += 1
        self._write(f"\n{self._parts}  ", "bold cyan", end="")
        self._write(title, "bold")
        for line in code:
            self._write(f"{_INDENT}{line}", "cyan")

    @contextmanager
    def _quoted(self) -> Generator[Callable[[str], None]]:
        """Yield a function that writes generated text, with a vertical rule before each line."""
        rule = f"{_INDENT}│ "
        self._write(f"\n{rule}", "dim", end="")

        def write(text: str) -> None:
            first, *others = text.split("\n")
            self._write(first, end="")
            for line in others:
                self._write(f"\n{rule}", "dim", end="")
                self._write(line, end="")

        try:
            yield write
        finally:
            self._write("\n")

    def _write_result(self, elapsed: float, *facts: str) -> None:
        self._write(f"{_INDENT}✓ {elapsed:.2f} s", "green", end="")
        self._write("".join(f" · {fact}" for fact in facts), "dim")

    def _progress(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn(_INDENT[1:]), BarColumn(bar_width=40), MofNCompleteColumn())
        # A bar that cannot move is noise.
        return Progress(*columns, console=self._console, disable=not self._console.is_terminal)

    def _write_summary(self, elapsed: float) -> None:
        billed = f"{len(self._server.billed):,} generations over real HTTP, at no cost."
        self._write(f"\nCompleted in {elapsed:.1f} s: ", "bold", end="")
        self._write(billed)
        self._write('Next: neuralbox generate "Hello" --local · neuralbox serve · neuralbox --help', "dim")


def _generate_blocking(api_key: str, base_url: str) -> Generation:
    from neuralbox_sync import NeuralBox

    with NeuralBox(api_key, base_url=base_url) as client:
        return client.generate(_MODEL, _SENTENCE)


class _Ticker:
    """Counts in a task, which a blocked event loop would stop."""

    ticks = 0

    async def run(self) -> None:
        while True:
            await anyio.sleep(0.01)
            self.ticks += 1


async def _generate_all(client: AsyncNeuralBox, count: int, concurrency: int, on_completed: Callable[[], None]) -> None:
    """Make *count* generations, *concurrency* of them at a time; call *on_completed* after each."""
    numbers = iter(range(1, count + 1))

    async def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            await client.generate("gpt-5-nano", f"Question {number}")
            on_completed()

    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency):
            tasks.start_soon(work, numbers)
