"""Do two ways of computing a base agree? And the record of it, so that the next start need not ask. Knows no architecture."""

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch

from tunesmith.engine import batch, cache, lean, lean_neox, lean_parts, rope
from tunesmith.engine.batch import Batch, Row
from tunesmith.engine.cache import RowCache
from tunesmith.store import write_atomically

TOLERANCE = 1e-4
"""Largest difference of logits in float32, relative to the largest logit."""
LENGTHS = (24, 5, 17)
STEPS = 3
"""Tokens that each prompt is decoded on."""
MAX_WINDOW = 256
"""A sliding window up to this size is outrun by the prompts; a larger one would make each start slow."""

Reference = Callable[[list[int]], torch.Tensor]
"""Logits [T, V] of a whole sequence, by the other way."""


class Computes(Protocol):
    """A model over our cache."""

    device: torch.device
    num_layers: int
    vocab_size: int
    dtype: torch.dtype
    key_order: torch.Tensor | None
    """[head size] in which order the numbers of a key lie in the cache; None as transformers has them."""

    def compute(
        self, batch: Batch, cache: RowCache, wanted_R: torch.Tensor, embeds_ND: torch.Tensor | None = None, hidden: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]: ...


@torch.inference_mode()
def difference(model: Computes, reference: Reference, max_positions: int, window: int | None) -> float:
    """The largest difference of last logits, relative, over ragged prompts in two chunks and some tokens after them."""
    longer = (window or 0) + 8 if window is not None and window <= MAX_WINDOW else 0
    lengths = [min(length + longer, max_positions) for length in LENGTHS]
    prompts = [[(7 * n + 3 * row + 3) % model.vocab_size for n in range(length)] for row, length in enumerate(lengths)]
    cache = RowCache(model.num_layers, model.device)
    cache.reserve(len(prompts), max(lengths))
    expected = [reference(prompt) for prompt in prompts]
    worst = 0.0
    ends = [0] * len(prompts)
    for step in range(2 + STEPS):
        starts = ends
        left = [max(0, length - STEPS - start) for length, start in zip(lengths, starts, strict=True)]
        counts = [(many + 1) // 2 if step == 0 else many if step == 1 else 1 for many in left]
        ends = [min(start + count, length) for start, count, length in zip(starts, counts, lengths, strict=True)]
        spans = zip(prompts, starts, ends, strict=True)
        rows = [Row(prompt[start:end], slot, start) for slot, (prompt, start, end) in enumerate(spans)]
        line = Batch([row for row in rows if row.ids], cache)
        if not line.rows:
            break
        logits, _ = model.compute(line, cache, torch.tensor(line.last_tokens(), device=model.device))
        for row, answer in zip(line.rows, logits.float(), strict=True):
            wanted = expected[row.slot][row.start + len(row.ids) - 1].float()
            worst = max(worst, float((answer - wanted).abs().max() / (1 + wanted.abs().max())))
    return worst


def record_path(folder: Path, revision: str) -> Path:
    """Where the record of this base, by this code and these libraries, lies."""
    whole = hashlib.sha256()
    for module in (lean, lean_neox, lean_parts, rope, batch, cache):
        whole.update(Path(str(module.__file__)).read_bytes())
    for part in (revision, str(torch.__version__), version("transformers")):
        whole.update(f"\n{part}".encode())
    return folder / f"{whole.hexdigest()[:32]}.json"


def write_record(path: Path, base: str, found: float) -> None:
    """Says that the lean forward agreed. A folder that cannot be written to only makes the next start slower."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, json.dumps({"base": base, "largest_difference": found}).encode())
