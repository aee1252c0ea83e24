"""How much a key or a project may ask: buckets that fill evenly, and budgets that end with the day and the month (UTC).

Pure counting: who asks, what it costs and what a refusal says at the wire are admission's matter. Times are seconds.
"""

import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from tunesmith.types import Limits

MINUTE, DAY = 60.0, 86_400
EPOCH = date(1970, 1, 1).toordinal()
NAMES = ("requests_per_minute", "tokens_per_minute", "jobs_at_once", "tokens_per_day", "tokens_per_month")


@dataclass
class Bucket:
    """Holds `size` at most and fills evenly in a minute. What was reserved too low is owed: the level may fall below 0."""

    size: int
    level: float
    at: float

    def fill(self, size: int, now: float) -> None:
        """Up to `now`; a limit that was changed meanwhile counts from now on, with what was used already."""
        if size != self.size:
            self.level += size - self.size
            self.size = size
        self.level = min(float(size), self.level + (now - self.at) * size / MINUTE)
        self.at = now

    def wait_for(self, amount: int) -> float:
        """Seconds until `amount` is in it; infinite when it never is."""
        if amount > self.size:
            return math.inf
        return max(0.0, amount - self.level) * MINUTE / self.size

    def take(self, amount: int) -> None:
        """Negative amounts are given back."""
        self.level = min(float(self.size), self.level - amount)

    @property
    def remaining(self) -> int:
        return max(0, math.floor(self.level))

    @property
    def full_in(self) -> float:
        return (self.size - self.level) * MINUTE / self.size if self.size else 0.0


@dataclass
class Spent:
    """Tokens of a day and of its month, those included that answers under way have reserved."""

    day: str
    of_day: int
    of_month: int

    def turn(self, day: str) -> None:
        """Begins a new day, and a new month where it is one."""
        if day != self.day:
            self.of_month = self.of_month if day[:7] == self.day[:7] else 0
            self.of_day, self.day = 0, day

    def add(self, tokens: int) -> None:
        self.of_day += tokens
        self.of_month += tokens


def today(now: float) -> str:
    """The UTC date of a time since 1970."""
    return _date(int(now // DAY))


@lru_cache(maxsize=4)
def _date(days: int) -> str:
    return date.fromordinal(EPOCH + days).isoformat()


def first_of_month(day: str) -> str:
    return f"{day[:7]}-01"


def until_tomorrow(now: float) -> float:
    """Seconds until the next UTC day."""
    then = datetime.fromtimestamp(now, UTC)
    return ((then + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0) - then).total_seconds()


def until_next_month(now: float) -> float:
    """Seconds until the next UTC month."""
    then = datetime.fromtimestamp(now, UTC)
    later = then.replace(day=1) + timedelta(days=32)
    return (later.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - then).total_seconds()


@dataclass(frozen=True)
class Refusal:
    """`limit` is the one of NAMES that was met; `wait` is how long until it would not be, infinite when never."""

    limit: str
    wait: float


@dataclass
class Account:
    """What one key or one project has asked lately. `spent` is read from the table when a budget is first met."""

    limits: Limits = field(default_factory=dict)
    requests: Bucket | None = None
    tokens: Bucket | None = None
    spent: Spent | None = None

    @property
    def has_budget(self) -> bool:
        return "tokens_per_day" in self.limits or "tokens_per_month" in self.limits

    def refresh(self, limits: Limits | None, now: float, day: str) -> None:
        """Limits as they are now, buckets as full as they are now."""
        self.limits = limits or {}
        self.requests = _filled(self.requests, self.limits.get("requests_per_minute"), now)
        self.tokens = _filled(self.tokens, self.limits.get("tokens_per_minute"), now)
        if self.spent is not None:
            self.spent.turn(day)

    def refusal(self, tokens: int, wall: float) -> Refusal | None:
        """Why one more request of `tokens` is too much now; None when it is not."""
        for name, bucket, amount in (("requests_per_minute", self.requests, 1), ("tokens_per_minute", self.tokens, tokens)):
            if bucket is not None and (wait := bucket.wait_for(amount)) > 0:
                return Refusal(name, wait)
        if self.spent is not None:
            if self.spent.of_day + tokens > self.limits.get("tokens_per_day", math.inf):
                return Refusal("tokens_per_day", until_tomorrow(wall))
            if self.spent.of_month + tokens > self.limits.get("tokens_per_month", math.inf):
                return Refusal("tokens_per_month", until_next_month(wall))
        return None

    def take(self, requests: int, tokens: int) -> None:
        """Negative numbers are given back."""
        if self.requests is not None:
            self.requests.take(requests)
        if self.tokens is not None:
            self.tokens.take(tokens)
        if self.spent is not None:
            self.spent.add(tokens)


def _filled(bucket: Bucket | None, size: int | None, now: float) -> Bucket | None:
    if size is None:
        return None
    if bucket is None:
        return Bucket(size, float(size), now)
    bucket.fill(size, now)
    return bucket
