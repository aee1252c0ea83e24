import pytest

from tunesmith.train.schedule import factor


def rates(schedule, total=100, warmup_ratio=0.1):
    return [factor(step, total, warmup_ratio=warmup_ratio, schedule=schedule) for step in range(total)]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_rises_to_its_peak_and_every_step_learns(schedule):
    found = rates(schedule)
    assert found[:10] == sorted(found[:10])
    assert found[10] == max(found) == 1.0
    assert min(found) > 0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_rate_falls_after_the_warm_up(schedule):
    found = rates(schedule)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] < 0.02


def test_a_constant_rate_stays():
    assert set(rates("constant")[10:]) == {1.0}


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert rates("linear", warmup_ratio=0.0)[0] == 1.0
