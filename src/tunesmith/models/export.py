"""An adapter becomes a model that others can load: merged into its base, tested, and written as a Hugging Face folder.

Merged is into the base's own numbers only, never into 4 or 8 bits, which would round it away.
Nothing is believed: the folder is loaded again and must give the log-probabilities that base and adapter give together. Knows no
tokenizer; token ids come from whoever calls.
"""

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel

from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import CONFIG, WEIGHTS, AdapterInfo, read_adapter
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.loader import load_base
from tunesmith.models.shelf import read_json, wanted_names
from tunesmith.models.weights import in_dtype
from tunesmith.models.whole import FULL_CONFIG, save_whole
from tunesmith.types import Quantization

MERGEABLE = frozenset({"lora", "dora"})
EXACT = (1e-4, 1e-3)
"""How far a log-probability of the merged model may be off in float32, in nats: mean and worst."""
BOUNDS = {"float32": EXACT, "bfloat16": (5e-2, 0.5), "float16": (6e-3, 0.06)}
"""The same when it is written in this precision and read again. Those of 16 bits are three times what rounding costs the built-in
base (docs/export.md), which was trained in float32."""

Ids = Sequence[Sequence[int]]
"""Prompts as token ids."""


@dataclass(frozen=True)
class Merged:
    """A merged model, as it was tested."""

    info: AdapterInfo
    dtype: str
    mean: float
    """Mean distance of its log-probabilities from those of base and adapter, in nats."""
    worst: float
    drift: float | None
    """Mean distance from the quantized base with the adapter, on which it was trained; None where it was trained on this one."""


def merge(folder: Path, target: Path, base: Base, prompts: Ids, *, dtype: str | None = None) -> Merged:
    """Writes `base` with the adapter in `folder` merged into it, as a model of its own, to `target`, which must not be there.

    `dtype` is the precision of the written weights; None means the base's. Raises InvalidRequest for what cannot be merged, and
    when the written model computes something else, in which case nothing is left of it; StorageFull.
    """
    info = read_adapter(folder)
    _check(info, base)
    dtype = dtype or stored_dtype(base)
    adapted = _adapted(base, "none", folder)
    expected = _logprobs(adapted, prompts)
    merged = adapted.merge_and_unload(safe_merge=True)
    _compare(_logprobs(merged, prompts), expected, EXACT)
    tensors = in_dtype(merged.state_dict(), getattr(torch, dtype))
    written = save_whole(merged, tensors, target, base, dtype=dtype)
    try:
        mean, worst = _compare(_logprobs(load_base(find_base(str(target.absolute())), "none"), prompts), expected, BOUNDS[dtype])
    except InvalidRequest:
        shutil.rmtree(target)
        raise
    return Merged(written, dtype, mean, worst, _drift(info, folder, base, expected, prompts))


def _check(info: AdapterInfo, base: Base) -> None:
    if info.kind not in MERGEABLE:
        raise InvalidRequest(
            f"The adapter in {info.path} is a soft prompt, which has no weights to merge.",
            hint="Export it by itself: --to hf.", code="not_mergeable",
        )
    if info.base_revision != base.revision:
        raise InvalidRequest(
            f"The adapter in {info.path} was trained on another revision of {base.id}.", hint="Get that base again.",
            code="adapter_not_supported",
        )
    if "quantization_config" in read_json(base.folder / FULL_CONFIG):
        raise InvalidRequest(
            f"{base.id} is stored quantized, and nothing is merged into that.", hint="Take the base in 16 bits.",
            code="not_mergeable",
        )


def stored_dtype(base: Base) -> str:
    """The precision in which the base's weights lie on disk; float32 where its config.json does not tell one that we write."""
    config = read_json(base.folder / FULL_CONFIG)
    told = str(config.get("dtype", config.get("torch_dtype")))
    return told if told in BOUNDS else "float32"


def _drift(info: AdapterInfo, folder: Path, base: Base, expected: list[torch.Tensor], prompts: Ids) -> float | None:
    if info.quantization == "none":
        return None
    return _distance(_logprobs(_adapted(base, info.quantization, folder), prompts), expected)[0]


def _adapted(base: Base, quantization: Quantization, folder: Path) -> PeftModel:
    with warnings.catch_warnings():
        # PEFT asks transformers for something by its old name.
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(load_base(base, quantization), str(folder))


@torch.no_grad()
def _logprobs(model: torch.nn.Module, prompts: Ids) -> list[torch.Tensor]:
    """Of each prompt's own tokens but the first, given those before them."""
    model.eval()
    found = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        found.append(torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0])
    return found


def _compare(found: list[torch.Tensor], expected: list[torch.Tensor], bounds: tuple[float, float]) -> tuple[float, float]:
    """Mean and worst distance. Raises InvalidRequest when they are beyond the bounds, or no numbers."""
    mean, worst = _distance(found, expected)
    if mean <= bounds[0] and worst <= bounds[1]:
        return mean, worst
    raise InvalidRequest(
        f"The merged model is not base and adapter: log-probabilities are {mean:.2g} nats off, {worst:.2g} at worst.",
        hint="Export the adapter by itself (--to hf), or with --dtype float32.", code="merge_differs",
    )


def _distance(found: list[torch.Tensor], expected: list[torch.Tensor]) -> tuple[float, float]:
    """Mean and worst distance."""
    distances = (torch.cat(found) - torch.cat(expected)).abs()
    return distances.mean().item(), distances.max().item()


def copy_adapter(folder: Path, target: Path, base: Base) -> AdapterInfo:
    """The adapter's two files, as PEFT and vLLM load them, beside the base's tokenizer and template. Raises InvalidRequest."""
    info = read_adapter(folder)
    target.mkdir(parents=True)
    for name in (WEIGHTS, CONFIG):
        shutil.copyfile(folder / name, target / name)
    for name in wanted_names({path.name for path in base.folder.iterdir() if path.is_file()}):
        if name.startswith(("tokenizer", "special_tokens", "added_tokens", "chat_template", "vocab", "merges")):
            shutil.copyfile(base.folder / name, target / name)
    return info
