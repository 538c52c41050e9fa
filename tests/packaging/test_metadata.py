"""What the distribution says of itself, in pyproject.toml and once installed."""

import importlib
import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

import neuralbox_async

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements):
    """Return the sorted names of what is required, without versions and markers."""
    return sorted(re.match(r"[\w-]+", requirement).group() for requirement in requirements)


def test_required_packages():
    """Exactly four packages are required, each from a tried release on."""
    assert ["aiohttp", "anyio", "attrs", "cattrs"] == names(PROJECT["dependencies"])
    assert all(">=" in requirement for requirement in PROJECT["dependencies"])


def test_floors():
    """aiohttp and anyio are at least the releases without the faults that the client could not work around."""
    assert {"aiohttp>=3.14", "anyio>=4.16"} <= set(PROJECT["dependencies"])
    assert ">=3.11" == PROJECT["requires-python"]


def test_installed_requirements():
    """What pip was told to install with the package is what pyproject.toml names."""
    required = [line for line in distribution("neuralbox").requires if "extra ==" not in line]

    assert names(PROJECT["dependencies"]) == names(required)


def test_extras():
    """The extras that the documentation names exist."""
    assert {"cli", "speed", "dev"} <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("group", ["console_scripts", "pytest11"])
def test_entry_points(group):
    """The command and the pytest plugin are registered under the package's name and can be loaded."""
    (entry_point,) = distribution("neuralbox").entry_points.select(group=group)

    assert "neuralbox" == entry_point.name
    assert entry_point.load()


def test_version():
    """The package, its metadata and the changelog's latest release name the same version."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = [name for name in re.findall(r"^## \[?([^\]\s]+)", changelog, re.MULTILINE) if name != "Unreleased"]
    version = importlib.import_module("neuralbox_async").__version__

    assert distribution("neuralbox").version == version
    # Before the first release there is only what is unreleased.
    assert releases[:1] in ([version], [])
    assert releases or "Unreleased" in changelog


@pytest.mark.parametrize("package", ["neuralbox_async", "neuralbox_sync"])
def test_typed(package):
    """Both packages tell type checkers that they are typed."""
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("module", ["neuralbox_async", "neuralbox_async.testing", "neuralbox_sync"])
def test_public_names(module):
    """The public names are sorted, each is there, and none is private."""
    public = importlib.import_module(module)

    def order(name):  # constants, classes, the rest: as ruff sorts them
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    # The blocking side adds its own names before those that it passes on.
    names = [name for name in public.__all__ if module != "neuralbox_sync" or not hasattr(neuralbox_async, name)]
    assert sorted(set(names), key=order) == names
    assert len(set(public.__all__)) == len(public.__all__)
    assert [] == [name for name in public.__all__ if not hasattr(public, name)]
    assert [] == [name for name in public.__all__ if name.startswith("_") and name != "__version__"]
