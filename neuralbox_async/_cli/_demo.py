"""`neuralbox demo`: what the SDK does, shown on a local server: nothing else is contacted, and nothing is paid."""

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
from neuralbox_async._cli._terminal import console, costs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from neuralbox_async.testing import NeuralBoxServer

_LATENCY: Final = 0.25  # seconds; a model that thinks for no time would make concurrency look useless
_PACE: Final = 0.045  # seconds between the pieces of a stream: a person sees it being written
_MODEL: Final = "claude-sonnet-4.5"
_OTHER_FILES: Final = 60  # that a process has open besides
_MARGIN: Final = "   "

_HAIKU: Final = "Write a haiku about a river"
_SHORT: Final = "Say in one sentence what blocking code needs"
_STORY: Final = "Tell a very short story about a lighthouse"
_ANSWERS: Final = {
    _HAIKU: "Under the old bridge\nthe river counts the seasons,\nforgetting each one.",
    _STORY: (
        "The lighthouse keeper had not seen a ship for nine years.\n"
        "Each evening he lit the lamp all the same, and wrote\n"
        "“nothing to report” into the book.\n"
        "In the tenth year a sailor knocked, and thanked him\n"
        "for every one of those nights: “We all steered by it.”"
    ),
    _SHORT: "An answer it can simply wait for, and a loop that runs somewhere else.",
}


@click.command(short_help="Show what the SDK does, on a local server.")
@click.option(
    "--count", default=200, show_default=True, type=click.IntRange(1, 100_000), help="Generations in the last part."
)
@click.option(
    "--concurrency", default=200, show_default=True, type=click.IntRange(1, 5_000), help="How many of them at once."
)
def demo(*, count: int, concurrency: int) -> None:
    """
    Show the SDK at work on a local server: a generation, a live stream, a blocking call, many at once.

    Nothing but that server, which runs for this command only, is contacted; no key is needed, nothing is paid.
    """
    from neuralbox_async.testing import NeuralBoxServer

    concurrency = _allowed_connections(min(count, concurrency))
    with NeuralBoxServer(reply=_reply, latency=_LATENCY, event_interval=_PACE, balance=10_000_000) as server:
        try:
            anyio.run(_Demo(server, console(sys.stdout), count=count, concurrency=concurrency).show)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None  # one says what is wrong; those of many calls are alike


def _reply(request: dict[str, Any]) -> str:
    prompt = request["messages"][-1]["content"]
    return _ANSWERS.get(prompt, f"An answer to “{prompt}”.")


def _allowed_connections(wanted: int) -> int:
    """Return how many of *wanted* connections, with both ends here, can be open; raise the limit of files for it."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 2 * wanted + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= files:
        return wanted
    files = files if hard == resource.RLIM_INFINITY else min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, (files - _OTHER_FILES) // 2)


class _Demo:
    """The parts of the demonstration, and how they are written on *console*."""

    def __init__(self, server: NeuralBoxServer, console: Console, *, count: int, concurrency: int) -> None:
        self._server = server
        self._console = console
        self._count = count
        self._concurrency = concurrency
        self._parts = 0

    async def show(self) -> None:
        """Show everything, one part after the other."""
        started = time.perf_counter()
        self._write(f"neuralbox {__version__}", "bold")
        self._write(f"A local server plays the API at {self._server.base_url}")
        self._write("Nothing else is contacted, and nothing is paid.", "dim")
        key, url = self._server.api_key, self._server.base_url
        async with AsyncNeuralBox(key, base_url=url, max_connections=self._concurrency) as client:
            await self._generation(client)
            await self._live_stream(client)
            await self._blocking_call()
            await self._many(client)
        self._farewell(time.perf_counter() - started)

    # -------------------------------------------------------------------------------------------------------- the parts

    async def _generation(self, client: AsyncNeuralBox) -> None:
        self._title("A generation", f'await client.generate("{_MODEL}", "{_HAIKU}")')
        started = time.perf_counter()
        generation = await client.generate(_MODEL, _HAIKU)
        seconds = time.perf_counter() - started
        with self._quoted() as write:
            write(generation.content)
        self._fact(seconds, *costs(generation), str(generation.id))

    async def _live_stream(self, client: AsyncNeuralBox) -> None:
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
        seconds = time.perf_counter() - started
        self._fact(seconds, f"{len(arrivals)} pieces, the first after {arrivals[0]:.2f} s", *costs(stream.generation))

    async def _blocking_call(self) -> None:
        self._title(
            "A blocking call, in a thread, while this event loop runs on",
            "with neuralbox_sync.NeuralBox() as client:",
            f'    client.generate("{_MODEL}", ...)',
        )
        clock = _Clock()
        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.tick)
            generation = await anyio.to_thread.run_sync(_ask_blocking, self._server.api_key, self._server.base_url)
            tasks.cancel_scope.cancel()
            seconds = time.perf_counter() - started
            with self._quoted() as write:
                write(generation.content)
            self._fact(seconds, f"meanwhile a clock on the event loop ticked {clock.ticks} times")

    async def _many(self, client: AsyncNeuralBox) -> None:
        many = f"{self._count:,} generations, {self._concurrency:,} at a time"
        self._title(many, "async with anyio.create_task_group() as tasks: ...")
        self._write("")
        started = time.perf_counter()
        with self._progress() as progress:
            bar = progress.add_task("", total=self._count)
            await _generate_all(client, self._count, self._concurrency, lambda: progress.advance(bar))
        seconds = time.perf_counter() - started
        alone = f"one by one: {self._count * _LATENCY:,.0f} s"
        self._fact(
            seconds, f"{self._count / seconds:,.0f} per second · {self._server.peak_in_flight:,} in flight · {alone}"
        )

    # ------------------------------------------------------------------------------------------------ how it is written

    def _write(self, text: str, style: str = "", end: str = "\n") -> None:
        self._console.print(text, style=style, end=end)

    def _title(self, title: str, *code: str) -> None:
        self._parts += 1
        self._write(f"\n{self._parts}  ", "bold cyan", end="")
        self._write(title, "bold")
        for line in code:
            self._write(f"{_MARGIN}{line}", "cyan")

    @contextmanager
    def _quoted(self) -> Generator[Callable[[str], None]]:
        """Hand out a function that writes the text of a model, with a rule before each of its lines."""
        rule = f"{_MARGIN}│ "
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

    def _fact(self, seconds: float, *facts: str) -> None:
        self._write(f"{_MARGIN}✓ {seconds:.2f} s", "green", end="")
        self._write("".join(f" · {fact}" for fact in facts), "dim")

    def _progress(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn(_MARGIN[1:]), BarColumn(bar_width=40), MofNCompleteColumn())
        # Where it cannot move, a bar is noise.
        return Progress(*columns, console=self._console, disable=not self._console.is_terminal)

    def _farewell(self, seconds: float) -> None:
        billed = f"{len(self._server.billed):,} generations over real HTTP, not one of them paid for."
        self._write(f"\nDone in {seconds:.1f} s: ", "bold", end="")
        self._write(billed)
        self._write('Next: neuralbox generate "Hello" --local · neuralbox serve · neuralbox --help', "dim")


def _ask_blocking(api_key: str, base_url: str) -> Generation:
    from neuralbox_sync import NeuralBox

    with NeuralBox(api_key, base_url=base_url) as client:
        return client.generate(_MODEL, _SHORT)


class _Clock:
    """A task that a blocked event loop would bring to a stand."""

    ticks = 0

    async def tick(self) -> None:
        while True:
            await anyio.sleep(0.01)
            self.ticks += 1


async def _generate_all(client: AsyncNeuralBox, count: int, concurrency: int, done: Callable[[], None]) -> None:
    """Make *count* generations, *concurrency* at a time, and call *done* after each."""
    numbers = iter(range(1, count + 1))

    async def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            await client.generate("gpt-5-nano", f"Question {number}")
            done()

    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency):
            tasks.start_soon(work, numbers)
