"""
What an import and a first client cost: `python -c "$(cat benchmarks/startup.py)" MODULE EXPRESSION [HIDDEN ...]`.

Given to an interpreter as text, because as a module it would come with others loaded; and it imports only what
every interpreter has loaded by itself.
"""

import os
import sys
import time


def resident() -> int:
    """Return the bytes of memory that this process has now; where the system does not say, the most it ever had."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib would have to be imported
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Import, construct, and print both costs as JSON."""
    module, expression, *hidden = sys.argv[1:]
    for package in hidden:
        # An import of it now fails as if it were not installed.
        sys.modules[package] = None  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    interpreter, modules, started = resident(), len(sys.modules), time.process_time()
    imported = __import__(module) if module else None
    cpu, loaded, memory = time.process_time() - started, len(sys.modules) - modules, resident() - interpreter

    # Some clients want a running event loop, which is not theirs to pay for.
    import asyncio
    import json

    async def construct() -> float:
        started = time.process_time()
        made = eval(expression, {module: imported})  # noqa: S307 - the registry's own
        seconds = time.process_time() - started
        close = getattr(made, "aclose", None) or getattr(made, "close", None)
        if close is not None and (closing := close()) is not None:
            await closing
        return seconds

    numbers = {
        "cpu": 1000 * cpu,
        "memory": memory / 1e6,
        "modules": loaded,
        "construct": 1000 * asyncio.run(construct()),
        "interpreter": interpreter / 1e6,
    }
    print(json.dumps({"numbers": numbers}))


main()
