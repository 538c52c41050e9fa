"""Servers' answers to requests for values of a type: some of them invalid, until they are repaired."""

from __future__ import annotations

import attrs


@attrs.frozen
class Word:
    """A word and its length."""

    text: str
    length: int


def prompt_in(request):
    """Return the text of the first message of the user."""
    return next(message["content"] for message in request["messages"] if message["role"] == "user")


def tries_in(request):
    """Return how many answers the conversation of *request* has."""
    return sum(message["role"] == "assistant" for message in request["messages"])


def text_for(request):
    """Return the text for *request*: "word-2" gets two invalid ones, "word" none before a valid one."""
    prompt = prompt_in(request)
    word, _, invalid = prompt.partition("-")
    if tries_in(request) < int(invalid or 0):
        return f'{{"text": "{word}", "length": "long"}}'
    return f'{{"text": "{word}", "length": {len(word)}}}'


def answer(request, **members):
    """Return the response with `text_for` *request*; it costs one token."""
    tries = tries_in(request)
    id_ = f"gen_{prompt_in(request)}_{tries}"
    return {"id": id_, "status": "completed", "content": text_for(request), "tokens_used": 1, **members}


def priced_answer(request):
    """Return the price of a generation, 5 tokens, or an `answer` for it."""
    if request["path"].endswith("/calculate-price"):
        return {"max_token_cost": 5}
    return answer(request, tokens_used=5)
