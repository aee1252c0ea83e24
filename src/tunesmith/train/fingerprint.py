"""What a checkpoint was made from: base, rows, chat template, recipe, and the versions of what computes.

A run goes on only on the same; other versions compute the same up to rounding, which is told.
"""

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version

from transformers import PreTrainedTokenizerBase

from tunesmith.errors import TrainingFailed
from tunesmith.models.catalog import Base
from tunesmith.recipes.run import Recipe

NAMES = {"base_revision": "the base", "rows": "the rows", "template": "the chat template", "recipe": "the recipe"}
"""Fingerprint -> what has changed when it has."""
LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
BITS = ("method", "adapter", "quantization", "seed")
"""Parts of a recipe on which the bits depend; the others say where, how often and how fast."""

MadeFrom = dict[str, str]


def made_from(recipe: Recipe, base: Base, tokenizer: PreTrainedTokenizerBase, rows: str) -> MadeFrom:
    """`recipe` as it was ordered, before anything was chosen; `rows` is the digest of the encoded rows."""
    whole = recipe.model_dump(mode="json")
    return {
        "base_revision": base.revision,
        "rows": rows,
        "template": _sha256(str(tokenizer.chat_template)),
        "recipe": _sha256(json.dumps([whole[part] for part in BITS], sort_keys=True)),
        "versions": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    }


def compare(now: MadeFrom, then: MadeFrom, warn: Callable[[str], object]) -> None:
    """Raises TrainingFailed when a run that began with `then` cannot go on with `now`; tells `warn` of other versions."""
    changed = [words for name, words in NAMES.items() if now[name] != then[name]]
    if changed:
        what = " and ".join(changed)
        raise TrainingFailed(
            f"Since the checkpoint was written, this has changed: {what}. The run cannot go on.",
            hint="Put them back, or start a new run in another folder.",
        )
    if now["versions"] != then["versions"]:
        warn(f"The checkpoint was written by {then['versions']}; this is {now['versions']}: the same up to rounding.")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
