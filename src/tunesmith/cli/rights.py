"""How the command line writes what keys and projects may do: durations such as 30d, limits such as requests_per_minute=60."""

import re

import typer

from tunesmith.errors import InvalidRequest
from tunesmith.types import Limits

UNITS = {"m": 60, "h": 3600, "d": 86400}
LIMIT = typer.Option(
    None, "--limit", metavar="NAME=NUMBER", help="requests_per_minute, tokens_per_minute, jobs_at_once, tokens_per_day or "
    "tokens_per_month; may be repeated.",
)  # fmt: skip


def to_seconds(text: str) -> int:
    """`30d`, `12h`, `90m`. Raises InvalidRequest."""
    if not re.fullmatch(r"[0-9]{1,6}[mhd]", text):
        raise InvalidRequest(f"{text!r} is no duration.", hint="Write it like 30d, 12h or 90m.", param="expires")
    return int(text[:-1]) * UNITS[text[-1]]


def to_limits(pairs: list[str] | None) -> Limits | None:
    """None without a pair. Raises InvalidRequest."""
    from tunesmith.api.limits import NAMES

    limits = {}
    for pair in pairs or ():
        name, _, value = pair.partition("=")
        if name not in NAMES or not re.fullmatch("[0-9]{1,15}", value):
            hint = f"Write it like requests_per_minute=60; there are {', '.join(NAMES)}."
            raise InvalidRequest(f"{pair!r} is no limit.", hint=hint, param="limits")
        limits[name] = int(value)
    return limits or None
