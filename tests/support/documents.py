"""The pages of the documentation, parsed: code blocks, tables, links, headings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import attrs

TIMEOUT = 60.0  # seconds
ROOT = Path(__file__).resolve().parents[2]
FOR_CONTRIBUTORS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"]
# The site takes their text from other files.
COPIED_PAGES = ("changelog", "contributing", "security", "benchmarks")
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.stem not in COPIED_PAGES),
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
]

_BLOCK = re.compile(
    r"(?:<!-- (?P<source>\S+) -->\n\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
_PROGRAM = re.compile(r"# ([\w/]+\.py)\n\n")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\|(.+)\|$")


@attrs.frozen
class Block:
    """A block of code: its *page*, its first *line*, and the file that it is a copy of, if any (*source*)."""

    page: Path
    line: int
    language: str
    code: str
    source: str | None

    def __str__(self):
        return f"{self.page.name}:{self.line}"


def read(page):
    return page.read_text(encoding="utf-8")


def blocks(page, *languages):
    """Return the code blocks of *page* in one of *languages*."""
    text = read(page)
    found = (
        Block(page, text.count("\n", 0, match.start("code")), match["language"], match["code"], match["source"])
        for match in _BLOCK.finditer(text)
    )
    return [block for block in found if block.language in languages]


def program_name(block):
    """Return the file name in the first line of *block*, if it is a program; a page may have several of them."""
    match = _PROGRAM.match(block.code)
    return match and match[1]


def programs(page):
    """Return the programs of *page* by their file names. They run in their hosts, side by side in one folder."""
    named = {program_name(block): block.code for block in blocks(page, "python")}
    return {name: code for name, code in named.items() if name is not None}


def command(page, name):
    """Return the words of the command *name* on *page*. It is shown without a prompt, in a block of plain text."""
    lines = (line for block in blocks(page, "text") for line in block.code.splitlines())
    return next(words for line in lines if (words := shlex.split(line))[:1] == [name])


def prose(page):
    """Return the text of *page* without its code blocks."""
    return _BLOCK.sub("", read(page))


def links(page):
    return _LINK.findall(prose(page))


def anchors(page):
    """Return the anchors of the headings of *page*, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(page, *headings):
    """Return the rows of the only table on *page* whose headings begin with *headings*, as dicts by heading."""
    lines = prose(page).split("\n")
    (start,) = (number for number, line in enumerate(lines) if line.startswith(f"| {' | '.join(headings)} |"))
    names = _cells(lines[start])
    rows = []
    for line in lines[start + 2 :]:
        if not _ROW.match(line):
            break
        rows.append(dict(zip(names, _cells(line), strict=True)))
    assert rows
    return rows


def _cells(line):
    return [cell.strip() for cell in _ROW.match(line)[1].split("|")]


def code_in(text):
    """Return the inline code in *text*."""
    return re.findall(r"`([^`]+)`", text)
