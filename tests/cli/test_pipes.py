"""Reading from pipes: everything that was written, and Ctrl-C at any moment."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from neuralbox_async._cli.pipes import read_chunks

SOON = 5.0  # seconds; the pipe stays open until the test ends


def test_all_bytes():
    """All bytes of a pipe are read, however they are written, and they arrive before the pipe is closed."""
    reading, writing = os.pipe()
    written = random.Random(1).randbytes(300_000)

    def write():
        for start in range(0, len(written), 70_000):
            os.write(writing, written[start : start + 70_000])
        os.close(writing)

    os.write(writing, b"first")
    with os.fdopen(reading, "rb") as file:
        chunks = read_chunks(file)
        assert b"first" == next(chunks)
        writer = threading.Thread(target=write)
        writer.start()
        assert written == b"".join(chunks)
        writer.join()


def test_a_file(tmp_path):
    """A file is read from its position to its end."""
    path = tmp_path / "rows.txt"
    path.write_bytes(b"one\ntwo\n")
    with path.open("rb") as file:
        file.seek(4)
        assert b"two\n" == b"".join(read_chunks(file))


@pytest.mark.parametrize("command", [("batch",), ("batch", "/dev/stdin"), ("generate",)])
def test_interrupt_at_any_moment(start, server, command):
    """Ctrl-C while a pipe that stays open is read ends the command soon, also between two reads; nothing is sent."""
    for _ in range(3):
        reading, writing = os.pipe()
        process = start(*command, stdin=reading)
        os.close(reading)
        try:
            # More than the buffer of a pipe: when all of it is written, the command reads.
            os.write(writing, b"x" * 1_000_000)
            time.sleep(random.choice([0, 0.0002, 0.001, 0.01]))
            process.popen.send_signal(signal.SIGINT)
            interrupted = time.monotonic()
            done = process.wait()
            assert (130, "neuralbox: interrupted") == (done.status, done.error_line)
            assert time.monotonic() - interrupted < SOON
        finally:
            os.close(writing)
    assert () == server.requests
