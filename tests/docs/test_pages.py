"""Links, names and tables of the documentation agree with each other and with the code."""

from __future__ import annotations

import builtins
import importlib.util
import inspect
import re
import textwrap

import attrs
import pytest
from documents import FOR_CONTRIBUTORS, PAGES, ROOT, anchors, blocks, code_in, links, prose, read, table

import neuralbox_async
import neuralbox_sync
import neuralbox_sync.web
from neuralbox_async import (
    APIStatusError,
    AsyncNeuralBox,
    BatchProgress,
    BatchReport,
    BatchResult,
    InvalidParameterError,
    NeuralBoxError,
    OnChanged,
    OnUnknown,
    RetryPolicy,
    _errors,
    gateway,
    otel,
    ray,
    testing,
    web,
)
from neuralbox_async._options import CallOptions
from neuralbox_async.testing import NeuralBoxServer

README = ROOT / "README.md"
CHANGELOG = ROOT / "CHANGELOG.md"
CALLS = ROOT / "docs" / "calls.md"
BATCHES = ROOT / "docs" / "batches.md"
ERRORS = ROOT / "docs" / "errors.md"
HANDLE_ERRORS = ROOT / "docs" / "how-to" / "handle-errors.md"
RETRIES = ROOT / "docs" / "retries.md"
STREAMS = ROOT / "docs" / "streams.md"
TESTING = ROOT / "docs" / "testing.md"

KINDS = {
    name: kind
    for name, kind in vars(neuralbox_async).items()
    if isinstance(kind, type) and issubclass(kind, NeuralBoxError)
}
SOURCES = [source for package in ("neuralbox_async", "neuralbox_sync") for source in (ROOT / package).rglob("*.py")]
# Classes and constants of other packages.
FOREIGN_NAMES = {"ClientSession", "ClientResponse", "ClientConnectorError", "StreamingResponse", "TestClient"}
FOREIGN_NAMES |= {"AsyncOpenAI", "EventSource", "OpenAI", "OpenAIError"}
FOREIGN_NAMES |= {"ChatOpenAI"}
FOREIGN_NAMES |= {"CancelledError", "NamedTuple", "NewType", "NotRequired", "ReadOnly", "TypedDict"}
FOREIGN_OPTIONS = {"--verifytypes", "--no-buffer", "--data", "--json", "--check"}
# Of pip and useradd in a Dockerfile.
FOREIGN_OPTIONS |= {"--no-cache-dir", "--system", "--uid"}
# Of uvicorn, gunicorn and Celery.
FOREIGN_OPTIONS |= {"--app", "--concurrency", "--preload", "--threads", "--worker-class", "--workers"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    """Every link to a file or a heading of this project has an existing target."""
    for link in links(page):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.is_file(), link
        assert not anchor or anchor in anchors(file), link


def test_every_page_is_linked():
    """The README names every guide and every example; the index of the site names every page (Sphinx checks that)."""
    text = read(README)
    guides = [page for page in PAGES if page.parent == ROOT / "docs" and page.stem != "index"]
    everything = [*guides, *(ROOT / "examples").glob("*.py"), ROOT / "LICENSE"]

    assert [] == [file.name for file in everything if file != README and file.relative_to(ROOT).as_posix() not in text]


def test_reference():
    """The reference documents every public name, and each page each name once."""
    dask = pytest.importorskip("neuralbox_async.dask")
    pages = [page for page in PAGES if page.parent == ROOT / "docs" / "reference"]
    directive = re.compile(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)", re.MULTILINE)
    documented = [(page, name) for page in pages for name in directive.findall(read(page))]
    packages = (neuralbox_async, neuralbox_sync, testing, otel, web, neuralbox_sync.web, gateway, dask, ray)
    public = {name for package in packages for name in package.__all__} - {"__version__"}

    assert public == {name for _, name in documented}
    assert len(documented) == len(set(documented))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names(page):
    """Every class that a page names exists and is public; pages for contributors may name private ones."""
    known = {*neuralbox_async.__all__, *testing.__all__, *otel.__all__, *web.__all__, *neuralbox_sync.web.__all__}
    known |= {*gateway.__all__, "NeuralBox", "Stream", *vars(builtins)}
    known |= set(re.findall(r'"(\w+)"', read(ROOT / "neuralbox_async/dask/__init__.py").partition("__all__")[2]))
    known |= set(ray.__all__)
    if page in FOR_CONTRIBUTORS:
        known |= {name for source in SOURCES for name in re.findall(r"^class (\w+)", read(source), re.MULTILINE)}
    if page == CHANGELOG:
        known |= {old for row in table(CHANGELOG, "Old", "New") for old in code_in(row["Old"])}
    named = {name for code in code_in(prose(page)) for name in re.findall(r"\b[A-Z]+[a-z]\w*[A-Z]\w*\b", code)}

    assert set() == named - known - FOREIGN_NAMES


@pytest.mark.parametrize("page", FOR_CONTRIBUTORS, ids=lambda page: page.name)
def test_paths(page):
    """Every file and folder that a page for contributors names exists, in the checkout or in the core."""
    paths = {code for code in code_in(prose(page)) if re.fullmatch(r"[\w./-]+\.(py|md)|[\w.-]+/[\w./-]*", code)}

    assert len(paths) >= 5
    assert [] == [
        path for path in paths if not (ROOT / path).exists() and not (ROOT / "neuralbox_async" / path).exists()
    ]


def test_packages():
    """The page about the architecture has a row for every package and private module of the core."""
    rows = table(ROOT / "docs" / "architecture.md", "Package", "Subject")
    named = {name.rstrip("/") for row in rows for name in code_in(row["Package"])}
    core = {file.name for file in (ROOT / "neuralbox_async").iterdir() if not file.name.startswith("__")}

    assert {"neuralbox_sync", *core} - {"py.typed"} == named


def test_options_of_the_command():
    """Every option that a page names exists in the command, in make, or in a tool that the page uses."""
    from neuralbox_async._cli import cli

    options = {"--help", "--version", *FOREIGN_OPTIONS}
    for command in cli.commands.values():
        options |= {option for parameter in command.params for option in parameter.opts}
    named = {option for page in PAGES for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", _without_old_names(page))}

    assert set() == named - options


def _without_old_names(page):
    return "\n".join(
        re.sub(r"^\| [^|]+ \|", "", line) if page == CHANGELOG else line for line in read(page).split("\n")
    )


# ------------------------------------------------------------------------------------------------------------- defaults


def test_timeouts():
    """The table of timeouts of calls has the defaults of the code."""
    client = inspect.signature(AsyncNeuralBox).parameters
    defaults = {name: f"{parameter.default:g}" for name, parameter in client.items() if name[:-7] in TIMED}
    options = CallOptions()
    defaults["timeout"] = f"{options.timeout:g} for a call, {options.stream_timeout} for a stream"
    defaults["wait(timeout=...)"] = f"{inspect.signature(AsyncNeuralBox.wait).parameters['timeout'].default:g}"

    assert {name for name in client if name.endswith("timeout")} < set(defaults)
    assert defaults == {code_in(row["Parameter"])[0]: row["Default"] for row in table(CALLS, "Parameter")}


TIMED = {"connect_", "first_event_", "stall_"}


def test_timeouts_of_streams():
    """The table of timeouts on the page about streams has the defaults of the code."""
    client, stream = (inspect.signature(made).parameters for made in (AsyncNeuralBox, AsyncNeuralBox.stream))
    rows = {code_in(row["Parameter"])[0]: row["Default"] for row in table(STREAMS, "Parameter")}

    assert {name for name in stream if name.endswith("timeout")} == set(rows)
    assert "the client's, if you set one; otherwise None" == rows.pop("timeout")
    assert rows == {name: f"{client[name].default:g}" for name in rows}


def test_connections():
    """The page about calls has the default number of connections."""
    default = inspect.signature(AsyncNeuralBox).parameters["max_connections"].default

    assert f"More than {default:,} concurrent requests" in " ".join(read(CALLS).split())


# -------------------------------------------------------------------------------------------------------------- batches


def test_fields_of_batches():
    """The page about batches names every field of results, progress and report."""
    named = set(code_in(prose(BATCHES)))
    report = {*(field.name for field in attrs.fields(BatchReport)), "tokens_used_total"}

    assert report == {name for row in table(BATCHES, "Field") for name in code_in(row["Field"])}
    assert {field.name for kind in (BatchResult, BatchProgress) for field in attrs.fields(kind)} <= named


def test_choices_for_unknown_requests():
    """The page about batches has every value of *on_unknown*."""
    (names, _function) = OnUnknown.__args__

    assert [f'"{name}"' for name in ("skip", "retry", "raise")] == [
        code for row in table(BATCHES, "`on_unknown`") for code in code_in(row["`on_unknown`"])
    ]
    assert {"skip", "retry", "raise"} == set(names.__args__)


def test_choices_for_changed_requests():
    """The page about batches has every value of *on_changed*."""
    names = [code for row in table(BATCHES, "`on_changed`") for code in code_in(row["`on_changed`"])]

    assert [f'"{name}"' for name in OnChanged.__args__] == names


# --------------------------------------------------------------------------------------------------------------- errors


def test_tree():
    """The class tree of the page has every class, below its base class, and so has that of the module."""
    (tree,) = blocks(ERRORS, "text")

    for text in (tree.code, re.search(r"^ {4}NeuralBoxError\n(?: {4}.*\n)+", _errors.__doc__, re.MULTILINE)[0]):
        assert {name: kind.__bases__[0].__name__ for name, kind in KINDS.items()} == _bases_in(textwrap.dedent(text))


def _bases_in(tree):
    shown, above = {}, {}
    for line in tree.splitlines():
        bars, name = re.match(r"([|+\- ]*)(\w+)", line).groups()
        depth = len(bars) // 4
        shown[name] = above.get(depth - 1, "Exception")
        above[depth] = name
    return shown


@pytest.mark.parametrize("page", [HANDLE_ERRORS, ERRORS], ids=lambda page: page.name)
def test_billed(page):
    """The billing status of a class on a page is that of its errors."""
    for row in table(page, "Error", "Billed?"):
        statuses = row["Billed?"].split(" / ")
        for name in code_in(row["Error"]):
            assert statuses == [_made(name, sent=sent).billed for sent in (False, True)[: len(statuses)]], name


def test_every_error_has_a_billing_status():
    """The page about errors has the billing status of every class."""
    rows = table(ERRORS, "Error", "Billed?")

    assert sorted(KINDS.keys() - {"NeuralBoxError"}) == sorted(code_in(row["Error"])[0] for row in rows)


def test_attributes_of_all():
    """The page about errors lists the attributes that every error has."""
    assert _attributes("NeuralBoxError") == {code_in(row["Attribute"])[0] for row in table(ERRORS, "Attribute")}


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"NeuralBoxError"}))
def test_attributes_of_some(name):
    """The attributes that a class adds to its base classes are listed, and the listed ones exist."""
    listed = {code_in(row["Error"])[0]: row["Attributes"] for row in table(ERRORS, "Error", "Attributes")}.get(name, "")
    inherited = set().union(*(_attributes(kind) for kind in KINDS if _is_derived(name, kind)))

    assert _attributes(name) - inherited <= set(code_in(listed))
    # Text in brackets or after a colon explains the attribute before it.
    assert set(code_in(re.sub(r"\(.*?\)|:.*", "", listed))) <= _attributes(name)


def _is_derived(name, kind):
    return name != kind and issubclass(KINDS[name], KINDS[kind])


def _attributes(name):
    """Return the names of the public attributes, except for methods, of an error of the class *name*."""
    error = _made(name)
    own = set(dir(error)) - set(dir(Exception)) - set(dir(OSError))
    return {fact for fact in own if not fact.startswith(("_", "default_")) and not callable(getattr(error, fact))}


def _made(name, *, sent=False):
    kind = KINDS[name]
    if issubclass(kind, APIStatusError):
        return kind("", status_code=499)
    if issubclass(kind, InvalidParameterError):
        return kind("temperature", 3, "less")
    return kind("", request_sent=True) if sent else kind("")


# -------------------------------------------------------------------------------------------------------------- retries


def test_rules_of_retrying():
    """The page has the rows of the tests of `RetryPolicy`, in their order, and the decisions of the policy."""
    tested = _rows_of_test_retry()
    columns = ("POST", "POST with `retry_unknown`", "GET")
    shown = {row["Failure"]: tuple(row[column] == "yes" for column in columns) for row in table(RETRIES, "Failure")}
    policy, retries_unknown = RetryPolicy(), RetryPolicy(retry_unknown=True)
    decided = {
        name: (
            policy.delay(1, error) is not None,
            retries_unknown.delay(1, error) is not None,
            policy.delay(1, error, costs_nothing=True) is not None,
        )
        for name, (error, *_) in tested.items()
    }

    assert list(tested) == list(shown)
    assert {name: tuple(row[1:]) for name, row in tested.items()} == shown == decided
    assert {"yes", "no"} == {row[column] for row in table(RETRIES, "Failure") for column in columns}


def _rows_of_test_retry():
    spec = importlib.util.spec_from_file_location("_rows_of_test_retry", ROOT / "tests" / "test_retry.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ROWS


def test_settings_of_retrying():
    """The page has every setting of `RetryPolicy` with its default, except for `jitter`, a function."""
    defaults = {field.name: repr(field.default) for field in attrs.fields(RetryPolicy) if field.name != "jitter"}

    assert defaults == {code_in(row["Setting"])[0]: row["Default"] for row in table(RETRIES, "Setting")}


def test_budget():
    """The page has the numbers of the retry budget."""
    from neuralbox_async._call.retry_budget import RetryBudget

    text = " ".join(read(RETRIES).split())
    assert f"share {RetryBudget.CAPACITY} units" in text
    assert f"takes {RetryBudget.COST} ({RetryBudget.THROTTLE_COST} after 429" in text


# -------------------------------------------------------------------------------------------------------------- testing


def test_faults():
    """The page about testing lists every method that injects a fault, and existing options of the server."""
    injector = NeuralBoxServer.__mro__[2]
    faults = {name for name, value in vars(injector).items() if callable(value) and not name.startswith("_")}

    assert faults == {code_in(row["Method"])[0].partition("(")[0] for row in table(TESTING, "Method")}
    (options,) = re.findall(r"The options set its behaviour: (.*?) and more", prose(TESTING), re.DOTALL)
    assert set(code_in(options)) <= set(inspect.signature(NeuralBoxServer).parameters)


def test_public_testing_names():
    """The tools that the page lists are public, and its fixtures are those of the plugin."""
    from neuralbox_async.testing import _pytest_plugin

    named = {name for row in table(TESTING, "Tool") for name in code_in(row["Tool"])}
    assert {"NeuralBoxServer", "FakeTransport"} <= set(testing.__all__) & named
    assert all(hasattr(_pytest_plugin, name) for name in named if name.startswith("neuralbox_"))


# ------------------------------------------------------------------------------------------------------------ changelog


def test_changelog():
    """The changelog follows its format: unreleased changes first, then versions with dates, newest first."""
    text = read(CHANGELOG)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    releases = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})", heading) for heading in headings[1:]]

    assert text.startswith("# Changelog\n\n")
    assert "https://keepachangelog.com/en/1.1.0/" in text
    assert "[Unreleased]" == headings[0]
    assert all(releases), headings
    versions = [tuple(map(int, release.groups()[:3])) for release in releases]
    assert sorted(versions, reverse=True) == versions
    dates = [release[4] for release in releases]
    assert sorted(dates, reverse=True) == dates


def test_kinds_of_changes():
    """Each version has each kind of change at most once, and each change is a list item or a row of a table."""
    for version in re.split(r"^## ", read(CHANGELOG), flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
        assert len(set(kinds)) == len(kinds)
        for changes in re.split(r"^### .+\n\n", version, flags=re.MULTILINE)[1:]:
            items = [line for line in changes.rstrip().splitlines() if line]
            assert items
            assert all(line.startswith(("- ", "  ", "|")) for line in items), items
