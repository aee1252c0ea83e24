"""Addresses that come with keys that are none: a few a minute are mistakes, more are slowed. Counts, and knows no keys.

A secret of 190 bits is not found by trying; but each try costs a look into the database, which belongs to those who have keys.
A key that was used lately is not looked up, and so never slowed.
"""

import ipaddress
import math
from collections.abc import Callable

from tunesmith.api.limits import Bucket
from tunesmith.errors import RateLimited

PER_MINUTE = 300
"""Wrong keys of one address."""
MAX_ADDRESSES = 10_000
"""More than these are forgotten, those that tried least first."""


class Strangers:
    """`clock` gives seconds of a monotonic clock. Used from one event loop."""

    def __init__(self, clock: Callable[[], float], per_minute: int = PER_MINUTE):
        self._clock = clock
        self._per_minute = per_minute
        self._buckets: dict[str, Bucket] = {}

    def check(self, address: str) -> None:
        """Raises RateLimited for an address that has tried too often, with when it may try again."""
        bucket = self._buckets.get(network(address))
        if bucket is None:
            return
        bucket.fill(self._per_minute, self._clock())
        if (wait := bucket.wait_for(1)) > 0:
            hint, seconds = "Check the key that is sent.", max(1, math.ceil(wait))
            raise RateLimited("Too many wrong API keys came from this address.", hint=hint, kind="requests", retry_after=seconds)

    def note(self, address: str) -> None:
        """It came with a wrong key."""
        now, name = self._clock(), network(address)
        bucket = self._buckets.setdefault(name, Bucket(self._per_minute, float(self._per_minute), now))
        bucket.take(1)
        if len(self._buckets) > MAX_ADDRESSES:
            for each in self._buckets.values():
                each.fill(self._per_minute, now)
            kept = sorted(self._buckets.items(), key=lambda item: item[1].level)[: MAX_ADDRESSES // 2]
            self._buckets = dict(kept)


def network(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: who has one such has all of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else str(parsed)
