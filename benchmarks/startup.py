"""
The cost of an import and a first client: `python -c "$(cat benchmarks/startup.py)" MODULE EXPRESSION [HIDDEN ...]`.

The interpreter runs this file with `-c`, because `-m` would load other modules first. At module level it imports only
what every interpreter has loaded at start-up.
"""

import os
import sys
import time


def resident_memory() -> int:
    """Return the resident memory of this process in bytes; its peak where the system has no /proc."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib would have to be imported
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Import the module, make a client, and print the costs as JSON."""
    module, constructor, *hidden = sys.argv[1:]
    for package in hidden:
        # From now on an import of the package fails as if it were not installed.
        sys.modules[package] = None  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    interpreter, modules_before, started = resident_memory(), len(sys.modules), time.process_time()
    imported = __import__(module) if module else None
    import_cpu = time.process_time() - started
    modules, memory = len(sys.modules) - modules_before, resident_memory() - interpreter

    # Some clients need a running event loop; its cost is not theirs.
    import asyncio
    import json

    async def first_client() -> float:
        started = time.process_time()
        client = eval(constructor, {module: imported})  # noqa: S307 - an expression of the registry
        seconds = time.process_time() - started
        close = getattr(client, "aclose", None) or getattr(client, "close", None)
        if close is not None and (closing := close()) is not None:
            await closing
        return seconds

    measurements = {
        "cpu": 1000 * import_cpu,
        "memory": memory / 1e6,
        "modules": modules,
        "construct": 1000 * asyncio.run(first_client()),
        "interpreter": interpreter / 1e6,
    }
    print(json.dumps({"measurements": measurements}))


main()
