"""Print constraints for pip: the lowest versions that pyproject.toml allows of the required packages and the extras."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]


def main() -> None:
    """Print one line per package, such as "aiohttp==3.14"."""
    requirements = PROJECT["dependencies"] + [
        line for extra in PROJECT["optional-dependencies"].values() for line in extra
    ]
    for requirement in requirements:
        match = re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", requirement)
        if match is None:
            sys.exit(f"{requirement}: no lowest version")
        print(f"{match[1]}=={match[2]}")


if __name__ == "__main__":
    main()
