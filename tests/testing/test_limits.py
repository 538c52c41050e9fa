"""The hourly and daily rate limits."""

import time

import pytest

from neuralbox_async.testing._http_errors import HTTPError
from neuralbox_async.testing._limits import RateLimits, Window


def limits(**members):
    """Return limits of 2 requests per hour and 3 per day."""
    return RateLimits(
        hour=Window(2, 10.0), day=Window(3, 100.0), plan="vip", **{"retry_after_header": False, **members}
    )


def test_the_hour_is_a_fixed_window():
    """The hour starts with its first request. At its end all requests are available again."""
    rate_limits = limits()
    rate_limits.admit(5.0)
    rate_limits.admit(14.0)
    with pytest.raises(HTTPError) as caught:
        rate_limits.admit(14.5)

    assert {
        "error": "rate_limit_exceeded",
        "message": "Hourly limit reached: 2 requests/hour on VIP plan",
        "retry_after": 1,
        "plan": "vip",
        "limit_hour": 2,
        "limit_day": 3,
    } == caught.value.body()
    rate_limits.admit(15.0)
    assert "1" == rate_limits.headers(15.0)["X-RateLimit-Remaining-Hour"]


def test_the_day_applies_across_hours():
    """If the daily limit is reached, a new hour admits no request."""
    rate_limits = limits(retry_after_header=True)
    for now in (0.0, 1.0, 11.0):
        rate_limits.admit(now)
    with pytest.raises(HTTPError, match="Daily limit reached: 3 requests/day") as caught:
        rate_limits.admit(30.5)
    assert 70 == caught.value.body()["retry_after"]
    assert {"Retry-After": "70"} == caught.value.headers


def test_headers_of_an_unused_window():
    """Before the first request all requests remain, and the hour would end an hour from now."""
    headers = limits().headers(0.0)
    assert ("2", "2", "3", "3") == tuple(
        headers[f"X-RateLimit-{kind}"] for kind in ("Limit-Hour", "Remaining-Hour", "Limit-Day", "Remaining-Day")
    )
    assert 9 <= int(headers["X-RateLimit-Reset-Hour"]) - time.time() <= 11


def test_limits_over_http(serve):
    """Every response has the headers. A request above the limit gets the flat 429 body and is not billed."""
    caller = serve(limit_hour=2, limit_day=10)
    responses = [caller.post_message(), caller.get("/balance"), caller.post_message(), caller.post_message()]

    assert [200, 200, 200, 429] == [response.status for response in responses]
    assert ["1", "1", "0", "0"] == [response.headers["X-RateLimit-Remaining-Hour"] for response in responses]
    assert ["9", "9", "8", "8"] == [response.headers["X-RateLimit-Remaining-Day"] for response in responses]
    assert {"error", "message", "retry_after", "plan", "limit_hour", "limit_day"} == set(responses[-1].json)
    assert 3590 <= responses[-1].json["retry_after"] <= 3600
    assert responses[-1].headers["Retry-After"] is None
    assert 2 == len(caller.server.billed)
    assert "0" == caller.post_message(stream=True).headers["X-RateLimit-Remaining-Hour"]


def test_streams_have_the_headers(serve):
    """A stream has the rate-limit headers too."""
    assert "4" == serve(limit_hour=5).post_message(stream=True).headers["X-RateLimit-Remaining-Hour"]


def test_retry_after_header(serve):
    """A server may send Retry-After besides the member of the body."""
    response = serve(limit_day=0, retry_after_header=True).post_message()
    assert (429, str(response.json["retry_after"])) == (response.status, response.headers["Retry-After"])
    assert response.headers["X-RateLimit-Limit-Hour"] is None


def test_no_limit_no_headers(caller):
    """A server without limits sends no rate-limit headers."""
    assert not [name for name in caller.post_message().headers if name.startswith("X-RateLimit")]


def test_a_new_hour_admits_again(serve):
    """When the hour has ended, requests are admitted again."""
    caller = serve(limit_hour=1, hour_seconds=0.05)
    assert 200 == caller.post_message().status
    caller.server.wait_until(lambda: caller.post_message().status == 200)
