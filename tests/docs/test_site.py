"""The site has a Markdown twin of each page, with the text of the reference, for programs that read it."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest
from documents import COPIED_PAGES, ROOT, TIMEOUT, read

import neuralbox_async
import neuralbox_sync
from neuralbox_async import AsyncNeuralBox, NeuralBoxError, testing

pytest.importorskip("sphinx")
pytestmark = pytest.mark.process

INDEX = """\
# A part of the site

```{toctree}
:caption: Reference

reference/batches
reference/client
reference/errors
reference/messages
reference/streams
reference/account
reference/transport
reference/testing
reference/command
reference/observability
reference/typed-answers
```

```{toctree}
:caption: The project

security
contributing
```
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the reference and two pages whose text is a file of the repository."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "docs" / "reference").mkdir(parents=True)
    (folder / "docs" / "index.md").write_text(INDEX, encoding="utf-8")
    for name in re.findall("^[a-z]+(?:/[a-z-]+)?$", INDEX, re.MULTILINE):
        (folder / "docs" / f"{name}.md").write_text(read(ROOT / "docs" / f"{name}.md"), encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--conf-dir", str(ROOT / "docs"), "docs", "site"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=4 * TIMEOUT)
    return folder / "site"


def test_list(site):
    """`llms.txt` has the summary, and a link to the twin of each page below the caption of its group."""
    title, summary, *groups = read(site / "llms.txt").split("\n\n")

    assert "# neuralbox" == title
    assert summary.startswith("> ")
    assert ["## Reference", "## The project"] == groups[::2]
    assert ["client.md", "errors.md"] == [re.findall(r"\(reference/(.*)\)", groups[1])[number] for number in (1, 2)]
    assert "- [Security](security.md)\n- [Contributing](contributing.md)\n" == groups[3]


def test_directives(site):
    """A twin has no directives of Sphinx."""
    assert "```{" not in read(site / "llms-full.txt")
    assert "autoclass" not in read(site / "llms-full.txt")


@pytest.mark.parametrize("module", [neuralbox_async, neuralbox_sync, testing], ids=lambda module: module.__name__)
def test_public_names(site, module):
    """Each public name that a module defines is a heading, with a docstring below it."""
    text = read(site / "llms-full.txt")
    documented = {
        name for name, _ in re.findall(r"^## `([\w.]+)`\n\n(?:```.*?```\n\n)?(\S)", text, re.DOTALL | re.MULTILINE)
    }
    # The facade has most of its names from the core.
    names = module.__all__ if module is not neuralbox_sync else ["NeuralBox", "Stream", "Batch", "History"]

    assert set() == {f"{module.__name__}.{name}" for name in names} - documented - {"neuralbox_async.__version__"}


@pytest.mark.parametrize("public", [AsyncNeuralBox, AsyncNeuralBox.generate, NeuralBoxError, neuralbox_async.preload])
def test_docstrings(site, public):
    """The docstring is in the twin, whole and unchanged."""
    name = f"{public.__module__.partition('.')[0]}.{public.__qualname__}"
    (_, section) = read(site / "llms-full.txt").split(f"# `{name}`\n", 1)

    assert inspect.getdoc(public) in section.split("\n#", 1)[0]


def test_signatures(site):
    """A signature has the types and the defaults, without private modules."""
    (_, section) = read(site / "reference" / "client.md").split("# `neuralbox_async.AsyncNeuralBox.generate`\n", 1)
    signature = section.split("```")[1]

    assert "async generate(model: str, messages: str | Message |" in signature
    assert "temperature: float | None = None" in signature
    assert "-> Generation" in signature
    assert "._" not in signature


def test_command(site):
    """The twin of the page about the command has the help of each command."""
    text = read(site / "reference" / "command.md")

    assert "## `neuralbox`\n\n```text\nUsage: neuralbox [OPTIONS]" in text
    assert "## `neuralbox batch`" in text
    assert "--max-concurrency" in text


def test_copied_pages(site):
    """The twin of a page whose text is a file of the repository has that text."""
    assert {"security", "contributing"} < set(COPIED_PAGES)
    assert read(site / "security.md").splitlines()[2:4] == read(ROOT / "SECURITY.md").splitlines()[2:4]
    assert "](../" not in read(site / "contributing.md")
