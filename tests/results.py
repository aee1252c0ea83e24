"""What tests compare of a run's result."""

from typing import Any


def timeless(result: dict[str, Any] | None) -> dict[str, Any]:
    """A result without the plan's reconciliation: that has seconds, and the memory of the day."""
    return {name: value for name, value in (result or {}).items() if name != "plan"}
