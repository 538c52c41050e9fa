"""The `neuralbox` command, also run by ``python -m neuralbox_async``. It needs the extra `cli`."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command and exit with its status; see `neuralbox_async._cli.run`. Without the extra, exit with a hint."""
    if find_spec("click") is None or find_spec("rich") is None:
        sys.exit("neuralbox: the command needs two more packages: pip install 'neuralbox[cli]'")
    from neuralbox_async._cli import run  # not above: click may be missing

    sys.exit(run())


if __name__ == "__main__":
    main()
