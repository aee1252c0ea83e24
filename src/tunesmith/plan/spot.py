"""What interruptions add to a run on machines that may be taken away: Young's interval (1974) and Daly's expectation (2006).

Pure arithmetic in hours. How often a machine is taken away is an assumption, and is told as one.
"""

import math
from typing import NamedTuple

BAND_PER_HOUR = (0.005, 0.01, 0.015, 0.02, 0.05)
"""Interruptions an hour that are assumed for each of AWS's bands of monthly shares: a cautious reading, for a share is no
rate."""
UNKNOWN_PER_HOUR = 0.05
"""Assumed where nothing is known: one in twenty hours."""
SAVE_HOURS = 10 / 3600
"""The loop stands still while a checkpoint is written: seconds for an adapter."""
RESTART_HOURS = 10 / 60
"""A new machine, the image, the base's files and loading."""

SCENARIOS = {"none": 0.0, "typical": 1.0, "bad": 4.0}
"""Scenario -> what the assumed rate is multiplied by."""


class Interrupted(NamedTuple):
    """One scenario of a run on spot machines."""

    scenario: str
    per_hour: float
    interruptions: float
    """Expected number."""
    checkpoint_minutes: float | None
    """The best interval between two checkpoints; None where nothing interrupts."""
    hours: float
    """Expected, from the first start to the end."""


def per_hour(band: int | None) -> float:
    """The assumed rate of a price's band."""
    return UNKNOWN_PER_HOUR if band is None else BAND_PER_HOUR[band]


def expect(hours: float, rate: float, *, save_hours: float = SAVE_HOURS, restart_hours: float = RESTART_HOURS) -> Interrupted:
    """`hours` of work under `rate` interruptions an hour, each of which costs half an interval and a restart.

    Wall time is hours * (1 + save / interval + rate * (interval / 2 + restart)) with interval = sqrt(2 * save / rate).
    """
    if rate <= 0:
        return Interrupted("none", 0.0, 0.0, None, hours)
    interval = min(math.sqrt(2 * save_hours / rate), max(hours, save_hours))
    wall = hours * (1 + save_hours / interval + rate * (interval / 2 + restart_hours))
    return Interrupted("", rate, rate * wall, interval * 60, wall)


def scenarios(hours: float, rate: float) -> tuple[Interrupted, ...]:
    """None, typical (the assumed rate) and bad (four times that)."""
    return tuple(expect(hours, rate * factor)._replace(scenario=name) for name, factor in SCENARIOS.items())
