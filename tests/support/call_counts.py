"""How many functions are called: work that is the same on each machine, however busy it is."""

from __future__ import annotations

import sys

from neuralbox_async._parsed import InvalidOutputError


def calls_of(function):
    """Return how many functions *function* calls, of Python and C, until it returns or raises `InvalidOutputError`."""
    calls = 0

    def count(_frame, event, _arg):
        nonlocal calls
        calls += event in {"call", "c_call"}

    previous = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    except InvalidOutputError:
        pass
    finally:
        sys.setprofile(previous)
    return calls
