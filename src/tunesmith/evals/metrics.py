"""Scores of an answer against the right one. Pure functions of text; who answered is not known here."""

import json
import math
import re
from collections import Counter
from typing import NamedTuple

from tunesmith.types import Message


class Interval(NamedTuple):
    low: float
    high: float


def normalise(text: str) -> str:
    """Lower case, punctuation and runs of blanks removed: SQuAD's normal form (Rajpurkar et al. 2016), articles kept."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def exact_match(answer: str, right: str) -> float:
    """1.0 when both are the same in normal form, else 0.0."""
    return float(normalise(answer) == normalise(right))


def token_f1(answer: str, right: str) -> float:
    """Harmonic mean of precision and recall of words, 0 to 1, as SQuAD counts it."""
    given, wanted = normalise(answer).split(), normalise(right).split()
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def same_message(answer: Message, right: Message) -> float:
    """1.0 when the answer does what the right one does: the same tool calls, the same JSON, or the same text to the letter."""
    if right.get("tool_calls"):
        return float(_calls(answer) == _calls(right) is not None)
    text, wanted = (answer.get("content") or "").strip(), right["content"]
    if wanted.startswith("{"):
        return float(_json(text) == _json(wanted))
    return float(text == wanted)


def _calls(message: Message) -> list[tuple[str, object]] | None:
    calls = [call["function"] for call in message.get("tool_calls") or []]
    return [(c["name"], _json(c["arguments"]) if isinstance(c["arguments"], str) else c["arguments"]) for c in calls] or None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def wilson(passed: int, total: int, z: float = 1.96) -> Interval:
    """Confidence interval of a share (Wilson 1927); z = 1.96 for 95 %. (0, 1) when nothing was counted."""
    if total == 0:
        return Interval(0.0, 1.0)
    share = passed / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))
