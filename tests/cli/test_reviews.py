"""3,000 reviews of a spreadsheet with a German locale: killed, continued, and merged with the table by its own ids."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuralbox_async.testing import NeuralBoxServer

pd = pytest.importorskip("pandas")
pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.usefixtures("folder")]

ROWS = 3000
TEXTS = ['Schön; aber "teuer"', "Zwei\nZeilen für 5 €", "Größe passt", "Sehr gut, „top“"]
COMMAND = [sys.executable, "-m", "neuralbox_async", "batch", "in.csv", "-o", "out.jsonl", "--template", "{Bewertung}",
           "--key-column", "Nr", "--keep", "Preis,Sterne"]  # fmt: skip
PROGRAM = """
import pandas
from neuralbox_sync import NeuralBox

table = pandas.read_csv("in.csv", sep=";", encoding="{encoding}", decimal=",")
requests = (
    {{"key": row["Nr"], "prompt": row["Bewertung"], "temperature": row["Temperature"]}}
    for row in table.to_dict("records")
)
options = {{"model": "gpt-5", "journal": "run.jsonl", "on_unknown": "retry", "include_done": True}}
with NeuralBox() as client, client.generate_many(requests, **options) as results:
    contents = {{result.key: result.unwrap().content for result in results}}
table["content"] = table["Nr"].map(contents)
table.to_csv("out.csv", index=False)
"""


@pytest.fixture(scope="module")
def server():
    with NeuralBoxServer(latency=0.005) as server:
        yield server


@pytest.fixture
def table(encoding):
    """Write the table as Excel writes it, and return its texts by their numbers."""
    texts = {5000 + 7 * row: f"{TEXTS[row % len(TEXTS)]} ({row})" for row in range(ROWS)}
    with Path("in.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
        writer.writerow(["Nr", "Bewertung", "Preis", "Sterne", "Temperature"])
        writer.writerows([number, text, "19,90", number % 5 + 1, "0,5"] for number, text in texts.items())
    return texts


def run(command, server, *, killed_after=None):
    """Run *command*; kill it once the server has billed *killed_after* more generations."""
    before = len(server.billed)
    environment = {
        **os.environ,
        "NEURALBOX_API_KEY": server.api_key,
        "NEURALBOX_BASE_URL": server.base_url,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        if killed_after is not None:
            server.wait_until(
                lambda: process.poll() is not None or len(server.billed) - before >= killed_after, timeout=60
            )
            process.kill()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (0 if killed_after is None else -9), errors.decode()


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig"])
@pytest.mark.parametrize("kind", ["command", "pandas"])
def test_killed_and_continued(server, table, kind, encoding):
    """Each row of the merged table has its own text, and nothing that is done is paid for again."""
    command = [*COMMAND, "--encoding", encoding, "--on-unknown", "retry"]
    if kind == "pandas":
        command = [sys.executable, "-c", PROGRAM.format(encoding=encoding)]
    before = len(server.billed)
    run(command, server, killed_after=ROWS // 4)
    run(command, server, killed_after=ROWS // 4)
    run(command, server)

    merged = pd.read_csv("in.csv", sep=";", encoding=encoding, decimal=",")
    if kind == "pandas":
        merged["content"] = pd.read_csv("out.csv")["content"]
    else:
        results = pd.read_json("out.jsonl", lines=True, encoding="utf-8")
        assert {"19,90"} == {item["Preis"] for item in results["item"]}
        merged = merged.merge(results, left_on="Nr", right_on="key", validate="1:1")
    assert {number: f"You said: {text}" for number, text in table.items()} == dict(
        zip(merged["Nr"], merged["content"], strict=True)
    )
    assert {19.9} == set(merged["Preis"])
    assert ROWS <= len(server.billed) - before <= ROWS + 2 * 64  # those in flight when it was killed, once more
