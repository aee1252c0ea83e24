"""The bases and adapters that are measured, and prompts for them. Imports no torch."""

import random
from pathlib import Path

from tokenizers import Tokenizer

from tunesmith.data import words
from tunesmith.paths import TINY

SHAPES = {"135m": "smollm2-135m", "410m": "pythia-410m"}
"""Our word for a base -> its shape in make_shaped_model.py. `tiny` is the built-in base, `untrained` one of its shape."""

ADAPTERS = {"r8-0": 8, "r16-0": 16, "r8-1": 8, "r16-1": 16, "r64-0": 64, "r64-1": 64, "r64-2": 64, "r64-3": 64}
"""Name -> rank; all linear layers."""
FOUR = ("r8-0", "r16-0", "r8-1", "r16-1")
FOUR_WIDE = ("r64-0", "r64-1", "r64-2", "r64-3")


def base_folder(folder: Path, name: str) -> Path:
    return TINY if name == "tiny" else folder / "bases" / SHAPES.get(name, name)


def base_id(folder: Path, name: str) -> str:
    """What `--base` takes."""
    return "tunesmith/tiny" if name == "tiny" else str(base_folder(folder, name))


def adapter_folder(folder: Path, name: str, adapter: str) -> Path:
    return folder / "adapters" / name / adapter


class Prompts:
    """Random prompts of an exact number of tokens that stay the same when they go through text; never the same one twice."""

    def __init__(self, seed: int):
        self._tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
        self._dice = random.Random(seed)

    def tokens(self, count: int) -> list[int]:
        while True:
            text = " ".join(self._dice.choices(words.WORDS, k=count))
            tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids[:count]
            if len(tokens) == count and self._tokenizer.encode(self.text(tokens), add_special_tokens=False).ids == tokens:
                return tokens

    def text(self, tokens: list[int]) -> str:
        """As a server that is asked in text gets it, and as answers are compared: without special tokens."""
        return str(self._tokenizer.decode(tokens))
