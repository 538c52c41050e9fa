"""Hour and day limits."""

import time

import pytest

from neuralbox_async.testing._limits import RateLimits, Window
from neuralbox_async.testing._refusals import RefusalError


def limits(**members):
    """Return limits of 2 an hour and 3 a day."""
    return RateLimits(
        hour=Window(2, 10.0), day=Window(3, 100.0), plan="vip", **{"retry_after_header": False, **members}
    )


def test_the_hour_is_a_fixed_window():
    """The hour begins with its first request and ends at once for all."""
    both = limits()
    both.admit(5.0)
    both.admit(14.0)
    with pytest.raises(RefusalError) as caught:
        both.admit(14.5)

    assert {
        "error": "rate_limit_exceeded",
        "message": "Hourly limit reached: 2 requests/hour on VIP plan",
        "retry_after": 1,
        "plan": "vip",
        "limit_hour": 2,
        "limit_day": 3,
    } == caught.value.body()
    both.admit(15.0)
    assert "1" == both.headers(15.0)["X-RateLimit-Remaining-Hour"]


def test_the_day_outlasts_the_hour():
    """When the day is used up, a new hour does not help."""
    both = limits(retry_after_header=True)
    for now in (0.0, 1.0, 11.0):
        both.admit(now)
    with pytest.raises(RefusalError, match="Daily limit reached: 3 requests/day") as caught:
        both.admit(30.5)
    assert 70 == caught.value.body()["retry_after"]
    assert {"Retry-After": "70"} == caught.value.headers


def test_headers_of_an_unused_window():
    """Before the first request everything remains, and the hour would end an hour from now."""
    headers = limits().headers(0.0)
    assert ("2", "2", "3", "3") == tuple(
        headers[f"X-RateLimit-{kind}"] for kind in ("Limit-Hour", "Remaining-Hour", "Limit-Day", "Remaining-Day")
    )
    assert 9 <= int(headers["X-RateLimit-Reset-Hour"]) - time.time() <= 11


def test_limits_over_http(serve):
    """Every answer carries the headers; the request above the limit is answered with the flat 429 body, and is free."""
    caller = serve(limit_hour=2, limit_day=10)
    answers = [caller.say(), caller.get("/balance"), caller.say(), caller.say()]

    assert [200, 200, 200, 429] == [answer.status for answer in answers]
    assert ["1", "1", "0", "0"] == [answer.headers["X-RateLimit-Remaining-Hour"] for answer in answers]
    assert ["9", "9", "8", "8"] == [answer.headers["X-RateLimit-Remaining-Day"] for answer in answers]
    assert {"error", "message", "retry_after", "plan", "limit_hour", "limit_day"} == set(answers[-1].json)
    assert 3590 <= answers[-1].json["retry_after"] <= 3600
    assert answers[-1].headers["Retry-After"] is None
    assert 2 == len(caller.server.billed)
    assert "0" == caller.say(stream=True).headers["X-RateLimit-Remaining-Hour"]


def test_streams_carry_the_headers(serve):
    """A stream's head has the rate-limit headers too."""
    assert "4" == serve(limit_hour=5).say(stream=True).headers["X-RateLimit-Remaining-Hour"]


def test_the_header_on_request(serve):
    """A server may send Retry-After beside the body's member."""
    answer = serve(limit_day=0, retry_after_header=True).say()
    assert (429, str(answer.json["retry_after"])) == (answer.status, answer.headers["Retry-After"])
    assert answer.headers["X-RateLimit-Limit-Hour"] is None


def test_no_limit_no_headers(caller):
    """A server without limits says nothing of them."""
    assert not [name for name in caller.say().headers if name.startswith("X-RateLimit")]


def test_a_new_hour_admits_again(serve):
    """When the hour is over, requests are admitted again."""
    caller = serve(limit_hour=1, hour_seconds=0.05)
    assert 200 == caller.say().status
    caller.server.wait_until(lambda: caller.say().status == 200)
