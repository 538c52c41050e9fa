"""The `neuralbox` command, also run by ``python -m neuralbox_async``. It needs the extra `cli`."""

import sys

# Nothing else: an interrupt is handled from here on.

_INTERRUPTED = 130  # 128 + the number of the signal, as in shells


def main() -> None:
    """Run the command and exit with its status; see `neuralbox_async._cli.run`. Without the extra, exit with a hint."""
    try:
        from importlib.util import find_spec

        if find_spec("click") is None or find_spec("rich") is None:
            sys.exit("neuralbox: the command needs two more packages: pip install 'neuralbox[cli]'")
        from neuralbox_async._cli import run  # not above: click may be missing

        status = run()
    except KeyboardInterrupt:  # while modules are imported, or at the very end
        sys.stderr.write("neuralbox: interrupted\n")
        status = _INTERRUPTED
    sys.exit(status)


if __name__ == "__main__":
    main()
