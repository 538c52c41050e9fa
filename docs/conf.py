"""The configuration of Sphinx, which builds the documentation site: `make docs`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pygments.lexers.special import TextLexer  # type: ignore[import-untyped]
from sphinx import addnodes
from sphinx.pycode import ModuleAnalyzer

import neuralbox_async
import neuralbox_sync
from neuralbox_async import testing, web
from neuralbox_async._cli import cli

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
    (r"py:class", r"(Dialect|JournalMark|Reply|.*\.SupportsModelDump|.*\.ClientOptions)"),
    # Web frameworks.
    (r"py:class", r"(Response|BackgroundTask|web\.\w+)"),
    # Type parameters, and the classes of OpenTelemetry and Dask.
    (r"py:class", r".*\._(type_parameters|parsed)\.T|(Tracer|Meter|Logger)Provider|distributed\.Client"),
    (r"py:class", r"Unpack|.*PlanOptions|.*WorkerSetup|JournalMark"),
]

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
maximum_signature_line_length = 100
# Otherwise "--local" in the help of the command becomes a dash.
smartquotes = False
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
_PUBLIC_MODULES = (neuralbox_async, neuralbox_sync, testing, web)
_SUMMARY = "Python SDK for the NeuralBox text-generation API: async first, with a blocking facade."


def _read_file(_app: Any, page: str, source: list[str]) -> None:
    """Take the text of a page from its file, and link to pages instead of files."""
    if page in _FILES:
        source[0] = (_ROOT / _FILES[page]).read_text(encoding="utf-8").replace("](docs/", "](")
    for name, file in _FILES.items():
        source[0] = source[0].replace(f"](../{file}", f"]({name}.md").replace(f"]({file}", f"]({name}.md")
    source[0] = re.sub(r"\[[^\]]*\]\(RESULTS([^)]*)\)", r"`benchmarks/RESULTS\1`", source[0])  # not a page
    source[0] = source[0].replace("[tests/README.md](tests/README.md)", "`tests/README.md`")  # the same


def _show_lines(_app: Any, _context: Any, lines: list[str]) -> None:
    """Show the tables and examples in the help of the command as it prints them."""
    shown: list[str] = []
    for line in lines:
        if line.startswith("| "):
            if not shown or not shown[-1].startswith("   "):
                shown += [".. code-block:: text", ""]
            shown.append("   " + line[2:])
        else:
            shown.append(line)
    lines[:] = shown


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


# ---------------------------------------------------------------------------------------------- Markdown, for programs

_DIRECTIVE = re.compile(r"^```\{([\w-]+)\}\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
_docstrings: dict[str, str] = {}


def _show_signature(  # the parameters are autodoc's
    _app: Any, _what: str, _name: str, _object: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show a default that attrs computes as `...`."""
    return signature and signature.replace("NOTHING", "..."), returns


def _read_docstring(_app: Any, what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Keep a docstring for the Markdown pages; find that of an alias, which stands in the module that defines it."""
    if what == "data":
        short = name.rpartition(".")[2]
        modules = [module for module in sys.modules if module.startswith(("neuralbox_async.", "neuralbox_sync."))]
        found = (ModuleAnalyzer.for_module(module).find_attr_docs().get(("", short)) for module in sorted(modules))
        lines[:] = next(filter(None, found))
    _docstrings[name] = "\n".join(lines).strip()


def _write_markdown(app: Any, exception: Exception | None) -> None:
    """Write a Markdown twin of each page, `llms.txt` (their list) and `llms-full.txt` (all of them), for programs."""
    if exception or app.builder.name != "html":
        return
    out, root = Path(app.outdir), app.config.root_doc
    pages = {root: _markdown(app, root)}
    lines = [f"# {project}", "", f"> {_SUMMARY}"]
    for caption, names in _contents(app):
        lines += ["", f"## {caption}", "", *(f"- [{app.env.titles[name].astext()}]({name}.md)" for name in names)]
        pages |= {name: _markdown(app, name) for name in names}
    for name, text in pages.items():
        (out / f"{name}.md").write_text(text, encoding="utf-8")
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "llms-full.txt").write_text("\n\n".join(pages.values()), encoding="utf-8")


def _contents(app: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the captions of the index with the names of their pages."""
    for toctree in app.env.get_doctree(app.config.root_doc).findall(addnodes.toctree):
        yield toctree["caption"], toctree["includefiles"]


def _markdown(app: Any, page: str) -> str:
    """Return the text of *page* with the output of its directives, as Markdown."""
    source = [Path(app.env.doc2path(page)).read_text(encoding="utf-8")]
    _read_file(app, page, source)
    document = app.env.get_doctree(page)
    # An object inside another one, such as a method, is part of the text of the outer one.
    objects = (node for node in document.findall(addnodes.desc) if not isinstance(node.parent, addnodes.desc_content))
    toctrees = iter(list(_contents(app)))

    def replace(directive: re.Match[str]) -> str:
        name, body = directive.groups()
        if name == "toctree":
            caption, names = next(toctrees)
            links = [f"- [{app.env.titles[name].astext()}]({name}.md)" for name in names]
            return "\n".join([f"**{caption}**", "", *links, ""])
        if ".. click::" in body:
            return _help()
        return "\n".join(_describe(next(objects), 2) for _ in range(body.count(".. auto")))

    return _DIRECTIVE.sub(replace, source[0])


def _describe(node: addnodes.desc, level: int) -> str:
    """Return the name as a heading, the signature, the docstring, and the members."""
    signature, content = node[0], node[-1]
    for name in list(signature.findall(addnodes.pending_xref_condition)):
        if name["condition"] == "*":  # the name with its module, beside the short one
            name.parent.remove(name)
    full_name, shown = signature["ids"][0], " ".join(signature.astext().split())
    lines = [f"{'#' * level} `{full_name}`", ""]
    if shown != full_name:
        lines += ["```text", shown, "```", ""]
    lines += [_docstrings.get(full_name, ""), ""]
    return "\n".join(
        [*lines, *(_describe(member, level + 1) for member in content if isinstance(member, addnodes.desc))]
    )


def _help() -> str:
    """Return what `neuralbox --help` and the `--help` of its commands print."""
    parent = click.Context(cli, info_name="neuralbox", terminal_width=100)
    contexts = [parent, *(click.Context(cli.commands[name], parent, name, terminal_width=100) for name in cli.commands)]
    texts = [
        f"## `{context.command_path}`\n\n```text\n{click.unstyle(context.get_help())}\n```\n" for context in contexts
    ]
    return "\n".join(texts)


def setup(app: Any) -> None:
    """Connect the handlers above."""
    app.add_lexer("csv", TextLexer)
    app.connect("source-read", _read_file)
    app.connect("sphinx-click-process-description", _show_lines)
    app.connect("missing-reference", _find_public_name)
    app.connect("autodoc-process-signature", _show_signature)
    app.connect("autodoc-process-docstring", _read_docstring)
    app.connect("build-finished", _write_markdown)
