"""The pages agree with each other and with the code: links, names, tables."""

from __future__ import annotations

import builtins
import importlib.util
import inspect
import re

import attrs
import pytest
from documents import PAGES, ROOT, anchors, blocks, code_in, links, prose, read, table

import neuralbox_async
from neuralbox_async import APIStatusError, AsyncNeuralBox, InvalidParameterError, NeuralBoxError, RetryPolicy, testing
from neuralbox_async.testing import NeuralBoxServer

README = ROOT / "README.md"
CHANGELOG = ROOT / "CHANGELOG.md"
ERRORS = ROOT / "docs" / "errors.md"
RETRIES = ROOT / "docs" / "retries.md"
STREAMS = ROOT / "docs" / "streams.md"
TESTING = ROOT / "docs" / "testing.md"

KINDS = {
    name: kind
    for name, kind in vars(neuralbox_async).items()
    if isinstance(kind, type) and issubclass(kind, NeuralBoxError)
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    """Every link to a file or a heading of ours leads there."""
    for link in links(page):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.is_file(), link
        assert not anchor or anchor in anchors(file), link


def test_every_page_is_linked():
    """From the README every page and every example is found, or named beside one that is."""
    text = read(README)
    everything = [*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py"), CHANGELOG, ROOT / "LICENSE"]

    assert [] == [file.name for file in everything if file.relative_to(ROOT).as_posix() not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names(page):
    """Every class that a page names exists."""
    known = {*neuralbox_async.__all__, *testing.__all__, "NeuralBox", "Stream", *vars(builtins)}
    named = {name for code in code_in(prose(page)) for name in re.findall(r"\b[A-Z]+[a-z]\w*[A-Z]\w*\b", code)}

    assert set() == named - known - {"ClientSession", "ClientResponse", "ClientConnectorError", "StreamingResponse"}


def test_variables():
    """The environment's variables that the README explains are those that the code reads."""
    sources = [*(ROOT / "neuralbox_async").glob("*.py"), *(ROOT / "neuralbox_sync").glob("*.py")]
    in_code = {name for source in sources for name in re.findall(r'"(NEURALBOX_[A-Z_]+)"', read(source))}

    assert in_code == {name for row in table(README, "Variable") for name in code_in(row["Variable"])}


# ------------------------------------------------------------------------------------------------------------- defaults


def test_timeouts():
    """Each default in the README's table of timeouts is the one in the signature."""
    client = inspect.signature(AsyncNeuralBox).parameters
    methods = {f"{name}(timeout=...)": getattr(AsyncNeuralBox, name) for name in ("stream", "wait")}
    defaults = {
        **{name: parameter.default for name, parameter in client.items() if name.endswith("timeout")},
        **{name: inspect.signature(method).parameters["timeout"].default for name, method in methods.items()},
    }

    assert defaults == {code_in(row["Parameter"])[0]: _number(row["Default"]) for row in table(README, "Parameter")}


def test_clocks():
    """The same for the clocks of streams."""
    client, stream = (inspect.signature(made).parameters for made in (AsyncNeuralBox, AsyncNeuralBox.stream))
    rows = {code_in(row["Parameter"])[0]: _number(row["Default"]) for row in table(STREAMS, "Parameter")}

    assert {name for name in stream if name.endswith("timeout")} == set(rows)
    assert rows == {name: stream[name].default if name == "timeout" else client[name].default for name in rows}


def test_connections():
    """The number of connections that the README tells is the default."""
    default = inspect.signature(AsyncNeuralBox).parameters["max_connections"].default

    assert f"More than {default:,} at a time" in read(README)


def _number(cell):
    return None if cell == "None" else float(cell)


# --------------------------------------------------------------------------------------------------------------- errors


def test_tree():
    """The tree of errors shows every class of it, under the class that it comes from."""
    (tree,) = blocks(ERRORS, "text")
    shown, above = {}, {}
    for line in tree.code.splitlines():
        bars, name = re.match(r"([|+\- ]*)(\w+)", line).groups()
        depth = len(bars) // 4
        shown[name] = above.get(depth - 1, "Exception")
        above[depth] = name

    assert {name: kind.__bases__[0].__name__ for name, kind in KINDS.items()} == shown


@pytest.mark.parametrize("page", [README, ERRORS], ids=lambda page: page.name)
def test_billed(page):
    """What a page says of the bill is what an error of that class says."""
    for row in table(page, "Error", "BillingStatus?"):
        said = row["BillingStatus?"].split(" / ")
        for name in code_in(row["Error"]):
            assert said == [_made(name, sent=sent).billed for sent in (False, True)[: len(said)]], name


def test_every_error_has_a_bill():
    """The page of errors says of every class what it means for the bill."""
    rows = table(ERRORS, "Error", "BillingStatus?")

    assert sorted(KINDS.keys() - {"NeuralBoxError"}) == sorted(code_in(row["Error"])[0] for row in rows)


def test_facts_of_all():
    """The attributes that every error has are those that the page of errors lists."""
    assert _facts("NeuralBoxError") == {code_in(row["Attribute"])[0] for row in table(ERRORS, "Attribute")}


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"NeuralBoxError"}))
def test_facts_of_some(name):
    """What a class adds to those that it comes from is listed for it, and what is listed is there."""
    listed = {code_in(row["Error"])[0]: row["Attributes"] for row in table(ERRORS, "Error", "Attributes")}.get(name, "")
    inherited = set().union(*(_facts(kind) for kind in KINDS if _comes_from(name, kind)))

    assert _facts(name) - inherited <= set(code_in(listed))
    # What stands in brackets or after a colon explains the attribute before it.
    assert set(code_in(re.sub(r"\(.*?\)|:.*", "", listed))) <= _facts(name)


def _comes_from(name, kind):
    return name != kind and issubclass(KINDS[name], KINDS[kind])


def _facts(name):
    """Return the names of the public attributes, methods excepted, of an error of the class *name*."""
    error = _made(name)
    own = set(dir(error)) - set(dir(Exception)) - set(dir(OSError))
    return {fact for fact in own if not fact.startswith(("_", "default_")) and not callable(getattr(error, fact))}


def _made(name, *, sent=False):
    kind = KINDS[name]
    if issubclass(kind, APIStatusError):
        return kind("", status=499)
    if issubclass(kind, InvalidParameterError):
        return kind("temperature", 3, "less")
    return kind("", request_sent=True) if sent else kind("")


# -------------------------------------------------------------------------------------------------------------- retries


def test_rules_of_retrying():
    """The rows of the page are the rows of the tests of `RetryPolicy`, in their order, and what the policy does."""
    tested = _rows_of_test_retry()
    columns = ("POST", "POST with `retry_unknown`", "GET")
    shown = {row["Failure"]: tuple(row[column] == "yes" for column in columns) for row in table(RETRIES, "Failure")}
    policy, bold = RetryPolicy(), RetryPolicy(retry_unknown=True)
    decided = {
        name: (
            policy.delay(1, error) is not None,
            bold.delay(1, error) is not None,
            policy.delay(1, error, idempotent=True) is not None,
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
    """Every setting of `RetryPolicy` is on the page, with its default."""
    defaults = {field.name: repr(field.default) for field in attrs.fields(RetryPolicy) if field.name != "uniform"}

    assert defaults == {code_in(row["Setting"])[0]: row["Default"] for row in table(RETRIES, "Setting")}


def test_budget():
    """The numbers of the retry budget are those of the code."""
    from neuralbox_async._call.retry_budget import RetryBudget

    text = " ".join(read(RETRIES).split())
    assert f"share {RetryBudget.CAPACITY} tokens" in text
    assert f"takes {RetryBudget.COST} ({RetryBudget.THROTTLE_COST} after 429" in text


# -------------------------------------------------------------------------------------------------------------- testing


def test_faults():
    """The page of testing lists every method that injects a fault, and existing options of the server."""
    injector = NeuralBoxServer.__mro__[2]
    faults = {name for name, value in vars(injector).items() if callable(value) and not name.startswith("_")}

    assert faults == {code_in(row["Method"])[0].partition("(")[0] for row in table(TESTING, "Method")}
    (options,) = re.findall(r"The options set its behaviour: (.*?) and more", prose(TESTING), re.DOTALL)
    assert set(code_in(options)) <= set(inspect.signature(NeuralBoxServer).parameters)


def test_public_testing_names():
    """The tools that the page lists are public, and the fixtures are those of the plugin."""
    from neuralbox_async.testing import _pytest_plugin

    named = {name for row in table(TESTING, "Tool") for name in code_in(row["Tool"])}
    assert {"NeuralBoxServer", "FakeTransport"} <= set(testing.__all__) & named
    assert all(hasattr(_pytest_plugin, name) for name in named if name.startswith("neuralbox_"))


# ------------------------------------------------------------------------------------------------------------ changelog


def test_changelog():
    """The changelog keeps to its format: what is unreleased first, then versions with dates, newest first."""
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
    """Each version sorts its changes into the kinds of the format, each kind once, and each change is a list item."""
    for version in re.split(r"^## ", read(CHANGELOG), flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
        assert len(set(kinds)) == len(kinds)
        for changes in re.split(r"^### .+\n\n", version, flags=re.MULTILINE)[1:]:
            items = [line for line in changes.rstrip().splitlines() if line]
            assert items
            assert all(line.startswith(("- ", "  ")) for line in items), items
