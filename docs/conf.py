"""The configuration of Sphinx, which builds the documentation site: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import neuralbox_async
import neuralbox_sync
from neuralbox_async import testing

project = "neuralbox"
author = "the neuralbox developers"
copyright = author  # noqa: A001 - Sphinx's name
version = release = neuralbox_async.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click", "sphinx_copybutton"]
exclude_patterns = ["_build"]
# The docstrings mark parameters and attributes with asterisks, and all other code with single backticks.
default_role = "code"
nitpicky = True
# The sites of other projects are not read: the build needs no network.
nitpick_ignore_regex = [
    (r"py:.*", r"(asyncio|collections|concurrent|datetime|enum|os|pathlib|ssl|types|typing|weakref)\..*"),
    # Aliases of types that are not public: the texts describe the values.
    (r"py:class", r"(Dialect|Reply)"),
]

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
maximum_signature_line_length = 100
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "neuralbox"
html_copy_source = False
html_show_sourcelink = False

# Pages of the site whose text is a file of the repository.
_FILES = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
    "benchmarks": "benchmarks/README.md",
}
_ROOT = Path(__file__).resolve().parent.parent
_PUBLIC_MODULES = (neuralbox_async, neuralbox_sync, testing)


def _read_file(_app: Any, page: str, source: list[str]) -> None:
    """Take the text of a page from its file, and link to pages instead of files."""
    if page in _FILES:
        source[0] = (_ROOT / _FILES[page]).read_text(encoding="utf-8").replace("](docs/", "](")
    for name, file in _FILES.items():
        source[0] = source[0].replace(f"](../{file}", f"]({name}.md").replace(f"]({file}", f"]({name}.md")
    source[0] = re.sub(r"\[[^\]]*\]\((RESULTS[^)]*)\)", r"`benchmarks/\1`", source[0])  # not a page


def _find_public_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link a type to its public name: annotations have the private module that defines it."""
    name = node.get("reftarget", "").rpartition(".")[2]
    for module in _PUBLIC_MODULES:
        if name in module.__all__:
            target = f"{module.__name__}.{name}"
            for kind in ("class", "exc", "data"):
                found = env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, kind, target, node, contnode)
                if found is not None:
                    return found
    return None


def _write_markdown(app: Any, exception: Exception | None) -> None:
    """Write a Markdown twin of each page, `llms.txt` (their list) and `llms-full.txt` (all of them), for programs."""
    if exception or app.builder.name != "html":
        return
    out = Path(app.outdir)
    pages = {name: app.env.doc2path(name) for name in sorted(app.env.found_docs)}
    lines, texts = [f"# {project}", "", f"> {_summary()}", ""], []
    for name, path in pages.items():
        text = Path(path).read_text(encoding="utf-8")
        (out / f"{name}.md").write_text(text, encoding="utf-8")
        lines.append(f"- [{app.env.titles[name].astext()}]({name}.md)")
        texts.append(text)
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "llms-full.txt").write_text("\n\n".join(texts), encoding="utf-8")


def _summary() -> str:
    return "Python SDK for the NeuralBox text-generation API: async first, with a blocking facade."


def setup(app: Any) -> None:
    """Connect the handlers above."""
    app.connect("source-read", _read_file)
    app.connect("missing-reference", _find_public_name)
    app.connect("build-finished", _write_markdown)
