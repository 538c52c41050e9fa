"""
The start of the command: an interrupt must be handled before modules are imported, which takes long on a busy machine.

This module imports nothing that takes time.
"""

import _thread
import sys

_PROGRAMS = frozenset({"neuralbox", "neuralbox.exe", "neuralbox-script.py"})
_PACKAGE = "neuralbox_async"
_is_importing = False
_lock = _thread.RLock()  # `reload` does not wait for one in another thread


def is_command() -> bool:
    """Return whether this process is the command, and has not begun to import the modules of the package."""
    program = (getattr(sys, "argv", None) or [""])[0]
    is_module = program == "-m" and _PACKAGE in sys.orig_argv
    return not _is_importing and (is_module or program.replace("\\", "/").rpartition("/")[2] in _PROGRAMS)


def import_all(name: str) -> object:
    """Import the modules of all public names, and return the one that is called *name*: the package's `__getattr__`."""
    global _is_importing  # noqa: PLW0603 - of the process

    module = sys.modules[_PACKAGE]
    if name in module.__all__:
        from importlib import reload

        with _lock:
            if name not in vars(module):
                _is_importing = True
                reload(module)  # it imports them this time
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
