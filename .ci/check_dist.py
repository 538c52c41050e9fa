"""Check the built sdist and wheel: what they hold, and that the wheel works in an environment of its own.

Run as `python .ci/check_dist.py dist`, by `make dist`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGES = ("neuralbox_async", "neuralbox_sync")
SDIST_ALSO = (
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "Makefile",
    ".ci/run",
    "tests/packaging/test_metadata.py",
)
IMPORT_ALL = "import neuralbox_async, neuralbox_sync, neuralbox_async.testing"

ROOT = Path(__file__).resolve().parent.parent


def check_contents(dist: Path) -> tuple[Path, str]:
    """Return the one wheel in *dist* and its version; exit if it or the sdist does not hold what it should."""
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    version = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}

    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    info = f"neuralbox-{version}.dist-info"
    expected = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    fail_if("the wheel lacks", (sources | expected) - in_wheel)
    fail_if("the wheel has also", in_wheel - sources - expected)
    fail_if("the sdist lacks", (sources | set(SDIST_ALSO)) - in_sdist)
    print(f"{wheel.name} and {sdist.name} hold what they should ({len(in_wheel)} and {len(in_sdist)} files)")
    return wheel, version


def check_wheel(wheel: Path, version: str) -> None:
    """Use *wheel* in a clean environment, bare and then with the command's extra; exit if that fails."""
    with tempfile.TemporaryDirectory() as directory:
        binaries = Path(directory, "venv", "bin")
        run(ROOT / ".ci" / "make-venv", sys.executable, binaries.parent, cwd=directory)

        install(binaries, str(wheel))
        run(binaries / "python", "-I", "-W", "error", "-c", IMPORT_ALL, cwd=directory)
        said = run(binaries / "neuralbox", "--version", cwd=directory, status=None)
        fail_if("without the extra, `neuralbox --version` says", {said} if "neuralbox[cli]" not in said else set())
        fail_if("without the extra, `neuralbox --version` says", {said} if "Traceback" in said else set())

        install(binaries, f"{wheel}[cli]")
        said = run(binaries / "neuralbox", "--version", cwd=directory)
        fail_if(f"`neuralbox --version` does not say {version} but", {said} if version not in said else set())
        run(binaries / "neuralbox", "--help", cwd=directory)
        run(binaries / "python", "-I", "-m", "neuralbox_async", "--help", cwd=directory)
    print(f"{wheel.name} works in a clean environment, without and with the extra `cli`")


def install(binaries: Path, requirement: str) -> None:
    """Install *requirement* into the environment of *binaries*."""
    quiet = ("--quiet", "--quiet", "--no-input", "--disable-pip-version-check")
    run(binaries / "python", "-m", "pip", "install", *quiet, requirement, cwd=str(ROOT))


def run(*command: str | Path, cwd: str, status: int | None = 0) -> str:
    """Return what *command* prints; exit with that if its exit status is not *status* (None: any)."""
    # Neither the checkout nor the environment of this process may lend the command what the wheel lacks.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NEURALBOX_"))}
    done = subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if status is not None and done.returncode != status:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def fail_if(complaint: str, items: set[str]) -> None:
    """Exit with *complaint* if there are any *items*."""
    if items:
        sys.exit(f"{complaint}: {', '.join(sorted(items))}")


if __name__ == "__main__":
    check_wheel(*check_contents(Path(sys.argv[1]).resolve()))
