"""How much of a text is in another, counted in words: BLEU, GLEU and ROUGE. Pure functions of two texts, from 0 to 1.

Our own, because the libraries that have them take over a second and 40 MB to import; the tests hold them equal to sacrebleu,
nltk and rouge-score.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

MAX_ORDER = 4
"""Longest n-gram of BLEU and GLEU."""
ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
PUNCTUATION = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""Where NIST's mteval-v13a, the tokenizer of BLEU, cuts words."""
WORD = re.compile(r"[^\W_]+")

Ngrams = Counter[tuple[str, ...]]


def ngrams(words: Sequence[str], order: int) -> Ngrams:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def bleu(answer: str, right: str) -> float:
    """Sentence BLEU (Papineni et al. 2002) as sacrebleu has it: 13a words, orders that fit, exponential smoothing."""
    given, wanted = words_13a(answer), words_13a(right)
    logs, smooth = [], 1.0
    for order in range(1, min(MAX_ORDER, len(given)) + 1):
        found = ngrams(given, order)
        matches = (found & ngrams(wanted, order)).total()
        if not matches:
            smooth *= 2
        logs.append(math.log((matches or 1 / smooth) / found.total()))
    if not logs or not set(given) & set(wanted):
        return 0.0
    brevity = min(0.0, 1 - len(wanted) / len(given))
    return math.exp(brevity + sum(logs) / len(logs))


def words_13a(text: str) -> list[str]:
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in ENTITIES.items():
        text = text.replace(entity, sign)
    text = f" {text} "
    for pattern, replacement in PUNCTUATION:
        text = pattern.sub(replacement, text)
    return text.split()


def gleu(answer: str, right: str) -> float:
    """Sentence GLEU (Wu et al. 2016): the lesser of precision and recall of all n-grams up to 4 words. Blanks cut words."""
    given, wanted = answer.split(), right.split()
    orders = range(1, MAX_ORDER + 1)
    matches = sum((ngrams(given, order) & ngrams(wanted, order)).total() for order in orders)
    most = max(sum(max(0, len(words) - order + 1) for order in orders) for words in (given, wanted))
    return matches / most if most else 0.0


def rouge_n(answer: str, right: str, order: int) -> float:
    """F1 of n-grams (Lin 2004); words are runs of letters and digits of any script, in lower case."""
    given, wanted = ngrams(_words(answer), order), ngrams(_words(right), order)
    return _f1((given & wanted).total(), given.total(), wanted.total())


def rouge_l(answer: str, right: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004)."""
    given, wanted = _words(answer), _words(right)
    return _f1(LCSseq.similarity(given, wanted), len(given), len(wanted))


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _f1(shared: int, given: int, wanted: int) -> float:
    return 2 * shared / (given + wanted) if shared else 0.0
