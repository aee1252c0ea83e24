"""A step that takes far too long is a hung one; work at a boundary, and time in which nobody ran, is not."""

from contextlib import contextmanager

import pytest

from tunesmith.train import watchdog
from tunesmith.train.watchdog import Watchdog


def test_the_limit_follows_the_slowest_of_the_newest_steps():
    dog = Watchdog(0)
    assert dog.limit_seconds == watchdog.FIRST_SECONDS
    for seconds in (3.0, 30.0, 2.0):
        dog._spent = seconds
        with dog.step_done():
            pass
    assert dog.limit_seconds == 30.0 * watchdog.TIMES
    for _ in range(watchdog.WINDOW_STEPS):
        dog._spent = 0.1
        with dog.step_done():
            pass
    assert dog.limit_seconds == watchdog.LEAST_SECONDS


@contextmanager
def counted(monkeypatch, clock):
    """A watchdog whose thread is this one: `clock` gives its seconds, tick by tick."""
    dog, bites = Watchdog(0), []
    times = iter(clock)
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(dog._ended, "wait", lambda seconds: False)
    monkeypatch.setattr(dog, "_bite", lambda: bites.append(dog._spent))
    yield dog, bites


def run_out(dog):
    with pytest.raises(StopIteration):
        dog._watch()


def test_seconds_in_which_the_process_was_stopped_do_not_count(monkeypatch):
    with counted(monkeypatch, [0.0, 0.5, 10_000.0, 10_000.5]) as (dog, bites):
        run_out(dog)
    assert bites == []
    assert dog._spent == 0.5 + 2 * watchdog.TICK_SECONDS + 0.5


def test_it_bites_beyond_the_limit_and_never_at_a_boundary(monkeypatch):
    ticks = [tick * watchdog.TICK_SECONDS for tick in range(int(watchdog.FIRST_SECONDS / watchdog.TICK_SECONDS) + 3)]
    with counted(monkeypatch, ticks) as (dog, bites):
        run_out(dog)
    assert bites
    with counted(monkeypatch, ticks) as (dog, bites), dog.step_done():
        run_out(dog)
    assert bites == []
