"""
Check the contents of the built sdist and wheel, and that the wheel works in a clean environment.

`make dist` runs it as `python .ci/check_dist.py dist`.
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
OTHER_SDIST_FILES = (
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "pyproject.toml",
    "Makefile",
    ".ci/run",
    "tests/packaging/test_metadata.py",
)
IMPORT_ALL = "import neuralbox_async, neuralbox_sync, neuralbox_async.testing, neuralbox_async.web, neuralbox_sync.web"

ROOT = Path(__file__).resolve().parent.parent


def check_contents(dist: Path) -> tuple[Path, str]:
    """Return the wheel in *dist* and its version. Exit if it or the sdist does not have the expected files."""
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
    fail_if("missing from the wheel", (sources | expected) - in_wheel)
    fail_if("unexpected in the wheel", in_wheel - sources - expected)
    fail_if("missing from the sdist", (sources | set(OTHER_SDIST_FILES)) - in_sdist)
    print(f"{wheel.name} and {sdist.name} have the expected files ({len(in_wheel)} and {len(in_sdist)})")
    return wheel, version


def check_reproducible(wheel: Path) -> None:
    """Build the wheel once more, from the same sources. Exit if its bytes are not those of *wheel*."""
    with tempfile.TemporaryDirectory() as directory:
        run(sys.executable, "-m", "build", "--wheel", "--quiet", "--outdir", directory, str(ROOT), cwd=directory)
        fail_if(
            "a second build differs",
            {wheel.name} if Path(directory, wheel.name).read_bytes() != wheel.read_bytes() else set(),
        )
    print(f"{wheel.name} has the same bytes when it is built again")


def check_wheel(wheel: Path, version: str) -> None:
    """
    Use *wheel* in a clean environment, without extras and then with the extra `cli`.

    Exit if that fails, or if pyright does not know the type of each public name there.
    """
    with tempfile.TemporaryDirectory() as directory:
        environment = Path(directory, "venv")
        binaries = environment / "bin"
        run(ROOT / ".ci" / "make-venv", sys.executable, environment, cwd=directory)

        install(binaries, str(wheel))
        run(binaries / "python", "-I", "-W", "error", "-c", IMPORT_ALL, cwd=directory)
        output = run(binaries / "neuralbox", "--version", cwd=directory, status=None)
        fail_if(
            "without the extra, `neuralbox --version` prints", {output} if "neuralbox[cli]" not in output else set()
        )
        fail_if("without the extra, `neuralbox --version` prints", {output} if "Traceback" in output else set())
        check_types(wheel, environment, directory)

        install(binaries, f"{wheel}[cli]")
        output = run(binaries / "neuralbox", "--version", cwd=directory)
        fail_if(f"`neuralbox --version` does not print {version} but", {output} if version not in output else set())
        run(binaries / "neuralbox", "--help", cwd=directory)
        run(binaries / "python", "-I", "-m", "neuralbox_async", "--help", cwd=directory)
    print(f"{wheel.name} works in a clean environment, without and with the extra `cli`")


def check_types(wheel: Path, environment: Path, directory: str) -> None:
    """Exit if pyright, which runs in *directory*, does not know the type of each public name in *environment*."""
    # pyright looks for the marker `py.typed` in the environment that is active, and reads no names of a checkout.
    activated = {"VIRTUAL_ENV": str(environment), "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    pyright = Path(sys.executable).with_name("pyright")
    for package in PACKAGES:
        run(pyright, "--ignoreexternal", "--verifytypes", package, cwd=directory, variables=activated)
    print(f"{wheel.name} has a type for each public name")


def install(binaries: Path, requirement: str) -> None:
    """Install *requirement* into the environment of *binaries*."""
    quiet = ("--quiet", "--quiet", "--no-input", "--disable-pip-version-check")
    run(binaries / "python", "-m", "pip", "install", *quiet, requirement, cwd=str(ROOT))


def run(*command: str | Path, cwd: str, status: int | None = 0, variables: dict[str, str] | None = None) -> str:
    """
    Return the output of *command*, which runs with *variables* in its environment.

    Exit with the output if the exit status is not *status* (None accepts any).
    """
    # The command must not use the checkout or the environment of this process.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NEURALBOX_"))}
    done = subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env=env | (variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if status is not None and done.returncode != status:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def fail_if(problem: str, items: set[str]) -> None:
    """Exit with *problem* and *items* if there are any *items*."""
    if items:
        sys.exit(f"{problem}: {', '.join(sorted(items))}")


if __name__ == "__main__":
    built, its_version = check_contents(Path(sys.argv[1]).resolve())
    check_reproducible(built)
    check_wheel(built, its_version)
