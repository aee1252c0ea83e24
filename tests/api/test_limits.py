"""Buckets fill evenly, budgets end with their day and month, and what was reserved comes back."""

import math
from datetime import UTC, datetime

import pytest

from tunesmith.api.admission import Estimate, duration, estimate, num_tokens
from tunesmith.api.limits import Account, Bucket, Spent, first_of_month, today, until_next_month, until_tomorrow
from tunesmith.serving.routing import CHAT, EMBEDDINGS, TOKENIZE


def test_a_bucket_gives_a_minutes_worth_and_fills_evenly():
    bucket = Bucket(60, 60.0, 0.0)
    for _ in range(60):
        assert bucket.wait_for(1) == 0
        bucket.take(1)
    assert bucket.wait_for(1) == pytest.approx(1.0)
    bucket.fill(60, 30.0)
    assert (bucket.remaining, bucket.full_in) == (30, pytest.approx(30.0))
    bucket.fill(60, 1000.0)
    assert bucket.remaining == 60


def test_what_can_never_be_had_is_not_waited_for():
    assert math.isinf(Bucket(10, 10.0, 0.0).wait_for(11))
    assert math.isinf(Bucket(0, 0.0, 0.0).wait_for(1))


def test_a_limit_that_changes_keeps_what_was_used():
    bucket = Bucket(60, 60.0, 0.0)
    bucket.take(50)
    bucket.fill(30, 0.0)
    assert bucket.remaining == 0
    bucket.fill(90, 0.0)
    assert bucket.remaining == 40


def test_an_account_refuses_by_the_first_limit_that_is_met():
    account = Account()
    account.refresh({"requests_per_minute": 2, "tokens_per_minute": 100, "tokens_per_day": 150}, 0.0, "2026-11-21")
    account.spent = Spent("2026-11-21", 0, 0)
    assert account.refusal(101, 0).limit == "tokens_per_minute"
    account.take(1, 90)
    assert account.refusal(20, 0).limit == "tokens_per_minute"
    account.take(0, -80)
    assert account.refusal(20, 0) is None
    account.take(1, 20)
    assert account.refusal(1, 0).limit == "requests_per_minute"
    account.refresh(account.limits, 60.0, "2026-11-21")
    account.take(0, 100)
    account.refresh(account.limits, 120.0, "2026-11-21")
    assert account.refusal(50, 0).limit == "tokens_per_day"
    account.refresh(account.limits, 120.0, "2026-11-22")
    assert account.refusal(50, 0) is None


def test_a_month_goes_on_when_a_day_ends():
    spent = Spent("2026-11-30", 5, 50)
    spent.turn("2026-11-30")
    assert (spent.of_day, spent.of_month) == (5, 50)
    spent = Spent("2026-11-29", 5, 50)
    spent.turn("2026-11-30")
    assert (spent.of_day, spent.of_month) == (0, 50)
    spent.turn("2026-12-01")
    assert (spent.of_day, spent.of_month) == (0, 0)


def test_days_and_months_are_utc():
    noon = datetime(2026, 12, 31, 12, tzinfo=UTC).timestamp()
    assert (today(noon), first_of_month(today(noon))) == ("2026-12-31", "2026-12-01")
    assert until_tomorrow(noon) == until_next_month(noon) == 12 * 3600
    assert until_next_month(datetime(2026, 1, 31, tzinfo=UTC).timestamp()) == 24 * 3600


def test_a_question_is_estimated_by_bytes_and_what_it_may_answer():
    body = {"messages": [{"role": "user", "content": "x" * 300}], "max_tokens": 50, "n": 2}
    assert estimate(CHAT, body) == Estimate(num_tokens("user") + 100, 100)
    assert estimate(CHAT, body | {"max_completion_tokens": 7, "n": 1}).output_tokens == 7
    assert estimate(CHAT, {"messages": "nonsense", "max_tokens": "many", "n": -1}).output_tokens > 0
    assert estimate(EMBEDDINGS, {"input": ["äää", [1, 2, 3]]}) == Estimate(5, 0)
    assert estimate(TOKENIZE, {"prompt": "x" * 300}) == Estimate(0, 0)
    assert num_tokens({"url": "data:image/png;base64," + "A" * 1_000_000}) < 2000


def test_waiting_times_are_written_as_openai_does():
    assert [duration(each) for each in (0, 0.012, 1.5, 360, 61.2)] == ["0ms", "12ms", "1.5s", "6m0s", "1m1s"]
