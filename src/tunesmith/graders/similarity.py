"""The table of text similarities: a metric's name -> a function of answer and right answer, from 0 to 1. Asks nobody.

`cosine` is not here: it needs embeddings, so `grade.py` has it. `meteor` is refused, with the reason.
"""

from collections.abc import Callable
from functools import partial

from rapidfuzz import fuzz

from tunesmith.graders.overlap import bleu, gleu, rouge_l, rouge_n

Similarity = Callable[[str, str], float]


def fuzzy_match(answer: str, right: str) -> float:
    """Share of characters that need no insertion or deletion to turn one text into the other (rapidfuzz's `ratio`)."""
    return fuzz.ratio(answer, right) / 100


METRICS: dict[str, Similarity] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "rouge_1": partial(rouge_n, order=1),
    "rouge_2": partial(rouge_n, order=2),
    "rouge_3": partial(rouge_n, order=3),
    "rouge_4": partial(rouge_n, order=4),
    "rouge_5": partial(rouge_n, order=5),
    "rouge_l": rouge_l,
}
REFUSED = {
    "meteor": "METEOR matches synonyms by the WordNet database, which is not shipped and would have to be downloaded",
}
"""Metrics that OpenAI has and we do not, with the reason."""
MAX_CHARACTERS = 30_000
"""Longest text that is compared; `fuzzy_match` takes about 0.1 s for it, and four times as long for twice as much."""


def cosine(a: list[float], b: list[float]) -> float:
    """Cosine of the angle between two vectors; 0 when one of them is zero."""
    length = (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0
