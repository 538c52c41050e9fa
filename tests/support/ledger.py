"""What the local server says of a batch: the ledger by which batches are judged."""

from __future__ import annotations

from collections import Counter


def prompt_of(request):
    """Return the prompt of a request that the server received."""
    members = request.json
    return members["messages"][-1]["content"] if "messages" in members else members["prompt"]


def bills(server):
    """Return how often each prompt was billed."""
    return Counter(prompt_of(server.requests[bill.request_index]) for bill in server.billed)


def spent(server):
    """Return the tokens that the server billed."""
    return sum(bill.tokens_used for bill in server.billed)


def refusals(server):
    """Return the number of responses with status 429."""
    return sum(request.response_status == 429 for request in server.requests)
