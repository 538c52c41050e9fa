"""LiteLLM, which reaches models through OpenAI's interface."""

from __future__ import annotations

import importlib
import importlib.util
import os

import pytest

if importlib.util.find_spec("litellm") is None:
    pytest.skip("LiteLLM is not installed", allow_module_level=True)

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no price list from the network
litellm = importlib.import_module("litellm")


@pytest.fixture(autouse=True)
def no_state_left():
    """Nothing to check: LiteLLM changes the environment."""


def complete(site, **parameters):
    options = {"model": "openai/gpt-5-nano", "api_base": site.url, "api_key": "none", "timeout": 60}
    return litellm.completion(**options, messages=[{"role": "user", "content": "Hi"}], **parameters)


def test_litellm(site):
    """LiteLLM gets texts and streams."""
    whole = complete(site)
    stream = complete(site, stream=True, stream_options={"include_usage": True})

    assert "You said: Hi" == whole.choices[0].message.content
    assert whole.usage.total_tokens > 0
    assert "You said: Hi" == "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


@pytest.mark.parametrize(
    "status, kind", [(400, "BadRequestError"), (401, "AuthenticationError"), (402, "RateLimitError")]
)
def test_litellm_errors(site, status, kind):
    """LiteLLM raises the error of the status, without sending the request again."""
    site.server.fail(status)
    with pytest.raises(getattr(litellm, kind)):
        complete(site, num_retries=0)

    assert 1 == len(site.server.requests)
