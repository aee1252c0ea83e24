"""Interruptions cost what Young and Daly say, and nothing where nothing interrupts."""

import math

import pytest

from tunesmith.plan.spot import expect, per_hour, scenarios


def test_the_interval_is_youngs_and_the_wall_time_is_dalys():
    found = expect(10, 0.05, save_hours=0.01, restart_hours=0.1)
    interval = math.sqrt(2 * 0.01 / 0.05)
    assert found.checkpoint_minutes == pytest.approx(interval * 60)
    assert found.hours == pytest.approx(10 * (1 + 0.01 / interval + 0.05 * (interval / 2 + 0.1)))
    assert found.interruptions == pytest.approx(0.05 * found.hours)


def test_no_other_interval_is_better():
    best = expect(10, 0.05, save_hours=0.01, restart_hours=0.1).hours

    def wall(interval):
        return 10 * (1 + 0.01 / interval + 0.05 * (interval / 2 + 0.1))

    assert all(wall(hours) >= best - 1e-12 for hours in (0.1, 0.5, 0.6, 0.7, 1.0, 2.0))


def test_there_are_three_scenarios_from_none_to_bad():
    found = scenarios(10, per_hour(4))
    assert [each.scenario for each in found] == ["none", "typical", "bad"]
    assert [each.hours for each in found] == sorted(each.hours for each in found)
    assert found[0].hours == 10


def test_more_interruptions_are_assumed_of_a_higher_band_and_most_of_an_unknown_one():
    rates = [per_hour(band) for band in (0, 1, 2, 3, 4, None)]
    assert rates == sorted(rates)
