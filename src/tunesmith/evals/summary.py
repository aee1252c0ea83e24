"""What many items of an eval run come to: counts, tokens per model, passes per criterion. Pure functions of what each came to."""

from collections.abc import Iterable, Sequence
from typing import Any

from tunesmith.graders.grade import add_usage
from tunesmith.recipes.grader import Criterion
from tunesmith.types import Usage

Outcome = dict[str, Any]
"""{"status": pass|fail|error, "results": [{"name", "passed", ...}], "usage": tokens per model}"""
COUNTS = ("invocation_count", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")


def summarise(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """OpenAI's result_counts, per_model_usage and per_testing_criteria_results."""
    counts = {"total": 0, "errored": 0, "failed": 0, "passed": 0}
    usage: Usage = {}
    criteria: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        counts["total"] += 1
        counts[{"pass": "passed", "fail": "failed", "error": "errored"}[outcome["status"]]] += 1
        usage = add_usage(usage, outcome["usage"])
        for result in outcome["results"]:
            criterion = criteria.setdefault(result["name"], {"passed": 0, "failed": 0})
            criterion["passed" if result["passed"] else "failed"] += 1
    return {
        "result_counts": counts,
        "per_model_usage": [{"model_name": model} | {key: used.get(key, 0) for key in COUNTS} for model, used in usage.items()],
        "per_testing_criteria_results": [{"testing_criteria": name} | counted for name, counted in criteria.items()],
    }


def names_of(criteria: Sequence[Criterion]) -> list[str]:
    """A name for each criterion, no two alike: its own, or its type; the second `right` is `right-2`."""
    names: list[str] = []
    for criterion in criteria:
        name, number = criterion.name or criterion.type, 2
        while name in names:
            name, number = f"{criterion.name or criterion.type}-{number}", number + 1
        names.append(name)
    return names
