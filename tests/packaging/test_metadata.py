"""The metadata of the distribution, in pyproject.toml and as installed."""

import importlib
import json
import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

import neuralbox_async

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def names(requirements):
    """Return the sorted names of the required packages, without versions and markers."""
    return sorted(re.match(r"[\w-]+", requirement).group() for requirement in requirements)


def test_required_packages():
    """Exactly four packages are required, each with a minimum version."""
    assert ["aiohttp", "anyio", "attrs", "cattrs"] == names(PROJECT["dependencies"])
    assert all(">=" in requirement for requirement in PROJECT["dependencies"])


def test_version_limits():
    """aiohttp and anyio are new enough to lack the faults that the client cannot work around; aiohttp 4 is excluded."""
    assert {"aiohttp>=3.14,<4", "anyio>=4.16"} <= set(PROJECT["dependencies"])
    assert ">=3.11" == PROJECT["requires-python"]


def test_interpreters():
    """The classifiers, the tests of the workflow and README name the same interpreters."""
    prefix = "Programming Language :: Python :: 3."
    minors = [int(line.removeprefix(prefix)) for line in PROJECT["classifiers"] if line.startswith(prefix)]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (matrix,) = re.findall(r"python: (\[.*\])", workflow)

    assert [*range(11, minors[-1] + 1)] == minors
    assert [f"3.{minor}" for minor in minors] == json.loads(matrix)
    assert f"CPython 3.11 to 3.{minors[-1]}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_installed_requirements():
    """The installed requirements are those in pyproject.toml."""
    required = [line for line in distribution("neuralbox").requires if "extra ==" not in line]

    assert names(PROJECT["dependencies"]) == names(required)


def test_extras():
    """The extras are those for users; what the development needs is not published."""
    assert {"cli", "dask", "otel", "ray", "speed"} == set(PROJECT["optional-dependencies"])
    assert {"test", "dev"} <= set(PYPROJECT["dependency-groups"])


@pytest.mark.parametrize("group", ["console_scripts", "pytest11"])
def test_entry_points(group):
    """The command and the pytest plugin are registered under the name of the package and can be loaded."""
    (entry_point,) = distribution("neuralbox").entry_points.select(group=group)

    assert "neuralbox" == entry_point.name
    assert entry_point.load()


def test_version():
    """The package, its metadata and the latest release in the changelog have the same version."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = [name for name in re.findall(r"^## \[?([^\]\s]+)", changelog, re.MULTILINE) if name != "Unreleased"]
    version = importlib.import_module("neuralbox_async").__version__

    assert distribution("neuralbox").version == version
    # Before the first release there are only unreleased changes.
    assert releases[:1] in ([version], [])
    assert releases or "Unreleased" in changelog


@pytest.mark.parametrize("package", ["neuralbox_async", "neuralbox_sync"])
def test_typed(package):
    """Both packages are marked as typed for type checkers."""
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("module", ["neuralbox_async", "neuralbox_async.testing", "neuralbox_sync"])
def test_public_names(module):
    """The public names are sorted, they exist, and none is private."""
    public = importlib.import_module(module)

    def order(name):  # constants, classes, the rest: as ruff sorts them
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    # The blocking package has its own names before those of the core.
    names = [name for name in public.__all__ if module != "neuralbox_sync" or not hasattr(neuralbox_async, name)]
    assert sorted(set(names), key=order) == names
    assert len(set(public.__all__)) == len(public.__all__)
    assert [] == [name for name in public.__all__ if not hasattr(public, name)]
    assert [] == [name for name in public.__all__ if name.startswith("_") and name != "__version__"]
