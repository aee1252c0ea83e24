"""Many wrong keys from one address are slowed; a key that is in use, or who asks from elsewhere, is not."""

import pytest

from tunesmith.api.strangers import MAX_ADDRESSES, Strangers
from tunesmith.errors import RateLimited


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_an_address_is_refused_after_its_share_and_asked_again_later():
    clock = Clock()
    strangers = Strangers(clock, per_minute=3)
    for _ in range(3):
        strangers.check("192.0.2.1")
        strangers.note("192.0.2.1")
    with pytest.raises(RateLimited) as caught:
        strangers.check("192.0.2.1")
    assert caught.value.retry_after == 20
    strangers.check("192.0.2.2")
    clock.now += 20
    strangers.check("192.0.2.1")


def test_one_network_of_ipv6_is_one_stranger():
    strangers = Strangers(Clock(), per_minute=1)
    strangers.note("2001:db8::1")
    with pytest.raises(RateLimited):
        strangers.check("2001:db8::ffff:1")
    strangers.check("2001:db8:0:1::1")


def test_those_who_tried_most_are_remembered_when_there_are_too_many():
    clock = Clock()
    strangers = Strangers(clock, per_minute=2)
    strangers.note("10.255.255.255")
    strangers.note("10.255.255.255")
    for number in range(MAX_ADDRESSES):
        strangers.note(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    with pytest.raises(RateLimited):
        strangers.check("10.255.255.255")


def test_at_the_port_wrong_keys_are_slowed_and_one_in_use_is_not(served, monkeypatch):
    monkeypatch.setattr(served.desk.callers, "strangers", Strangers(Clock(), per_minute=3))
    assert served.request("GET", "/v1/models")[0] == 200
    wrong = {"authorization": "Bearer ts_0123456789_wrong"}
    answers = [served.request("GET", "/v1/models", headers=wrong, key=False) for _ in range(5)]
    assert [status for status, _, _ in answers] == [401, 401, 401, 429, 429]
    assert answers[-1][1]["retry-after"] == "20"
    assert answers[-1][2]["error"]["code"] == "rate_limit_exceeded"
    assert served.request("GET", "/v1/models")[0] == 200
