"""Helpers that write and read the files of `neuralbox batch`."""

from __future__ import annotations

import json


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def file_lines(name="out.jsonl"):
    with open(name, encoding="utf-8") as file:  # noqa: PTH123
        return lines(file.read())


def prompts(server):
    """Return the prompts that *server* received, sorted."""
    return sorted(request.json["messages"][-1]["content"] for request in server.requests)


def by_key(rows):
    known = {row["key"]: row for row in rows}
    assert len(rows) == len(known)
    return known
