"""The lanes: the targets that `.ci/run` and the workflows name exist, and leave out no test."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / ".github/workflows").glob("*.yml")}
RUN = (ROOT / ".ci/run").read_text(encoding="utf-8")

RULES = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
(matrix,) = re.findall(r"target: \[(.*)\]", WORKFLOWS["ci.yml"])
IN_WORKFLOWS = {*matrix.split(", "), *re.findall(r"run: make ([a-z-]+)", "".join(WORKFLOWS.values()))}
(checks,) = re.findall(r"^checks=\((.*)\)$", RUN, re.MULTILINE)
IN_RUN = {*checks.split(), *re.findall(r"^make ([a-z-]+) ", RUN, re.MULTILINE)}


def expression(target):
    """Return the expression of markers with which the rule *target* selects among all tests."""
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    (timing,) = re.findall(r"^TIMING := (.*)$", MAKEFILE, re.MULTILINE)
    (found,) = re.findall(r' -m (?:"(.*?)"|(timing))', recipe.replace("$(TIMING)", timing))
    return "".join(found)


def test_targets():
    """Each target that a lane names is a rule of the Makefile."""
    assert IN_WORKFLOWS | IN_RUN <= RULES


def test_the_workflows_run_every_check():
    """What `.ci/run` checks, a job of the workflows checks as well: the job of the interpreters, or a target."""
    assert {"test-process", "test-newest"} == IN_RUN - IN_WORKFLOWS
    assert '-m "not timing"' in WORKFLOWS["ci.yml"]


def test_no_test_is_left_out():
    """With the interpreter of all tests, `.ci/run` leaves out only slow ones: each other test is in one lane."""
    lanes = [expression(target) for target in ("coverage", "test-process", "test-timing")]
    for slow, timing, process in itertools.product((False, True), repeat=3):
        markers = {"slow": slow, "timing": timing, "process": process}
        chosen = [lane for lane in lanes if eval(lane, {}, markers)]  # noqa: S307 - our own expressions
        assert (1 if timing or not slow else 0) == len(chosen)
