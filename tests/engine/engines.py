"""An engine without HTTP for tests: a runner with its thread, ways to ask it many things at once, and what `generate` says."""

import queue
import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel, get_peft_model

from tunesmith.engine.build import build_runner
from tunesmith.engine.core import Core
from tunesmith.engine.runner import Runner
from tunesmith.engine.sequence import VIRTUAL, Output, Sampling, Sequence
from tunesmith.engine.text import TextStream
from tunesmith.models.artifact import AdapterInfo, save_adapter
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.loader import load_base
from tunesmith.paths import TINY
from tunesmith.recipes.run import Recipe

TIE = 1e-5
"""Nats between generate's two best candidates below which either may come."""


class Engine:
    def __init__(self, base: Base, quantization: Any = "none", **options: Any):
        self.runner: Runner = build_runner(base, quantization, **options)
        self.core = Core(self.runner)
        self.core.start()
        self._count = 0

    def add(self, info: AdapterInfo) -> int:
        return self.core.add_adapter(info).result(timeout=60)

    def ask(
        self, asked: list[tuple[list[int], int | None]], *, root: bytes | None = None, embed: bool = False, **sampling: Any
    ) -> list[Output]:
        """One answer for each (prompt, adapter), computed together. `root` lets them share prompts, adapter by adapter."""
        done: queue.Queue[tuple[int, Output]] = queue.Queue()
        for index, (prompt, adapter) in enumerate(asked):
            wanted = Sampling(**{"max_tokens": 24, "temperature": 0.0, **sampling})
            virtual = self.runner.adapters.num_virtual(adapter) if adapter else 0
            self._count += 1
            self.core.add(Sequence(
                id=self._count, tokens=[VIRTUAL] * virtual + prompt, sampling=wanted,
                sink=lambda output, index=index: done.put((index, output)), text=TextStream(lambda tokens: ""),
                end_tokens=frozenset(), max_positions=self.runner.base.max_positions, adapter=adapter, num_virtual=virtual,
                cache_root=root + bytes([adapter or 0]) if root else None, wants_embedding=embed,
            ))
        answers = dict(done.get(timeout=120) for _ in asked)
        assert not any(output.error for output in answers.values())
        return [answers[index] for index in range(len(asked))]


def make_prompts(lengths: tuple[int, ...], vocabulary: int, seed: int = 5) -> list[list[int]]:
    dice = random.Random(seed)
    return [[dice.randrange(vocabulary) for _ in range(length)] for length in lengths]


def save_base(model: torch.nn.Module, folder: Path) -> Base:
    """Saves a model with the built-in base's tokenizer."""
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    return find_base(str(folder))


def save_peft(base: Base, config: Any, folder: Path, seed: int = 1) -> AdapterInfo:
    """A saved adapter of this PEFT configuration, its weights drawn with the seed."""
    torch.manual_seed(seed)
    model = get_peft_model(load_base(base, "none"), config)
    for name, parameter in model.named_parameters():
        if "prompt_encoder" in name:
            parameter.data.normal_(std=0.5)
        if "magnitude" in name:
            parameter.data *= 0.5 + torch.rand_like(parameter)
    recipe = Recipe.model_validate({"base": base.id, "quantization": "none", "data": {"train": "none.jsonl"}})
    return save_adapter(model, folder, base, recipe)


def reference(base: Base, info: AdapterInfo | None = None) -> torch.nn.Module:
    """The base, or PEFT's adapter on it, by the trainer's road."""
    model = load_base(base, "none")
    return model if info is None else PeftModel.from_pretrained(model, info.path).eval()


class Generated(NamedTuple):
    tokens: list[int]
    gaps: list[float]
    """Nats between the two best candidates of each token."""
    logprobs: list[float]


def generate(model: torch.nn.Module, prompt: list[int], count: int = 24) -> Generated:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, eos_token_id=None,
            pad_token_id=0, output_logits=True, return_dict_in_generate=True,
        )
    logprobs = torch.log_softmax(torch.cat(out.logits).float(), -1)
    top = logprobs.topk(2, -1).values
    tokens = out.sequences[0, -count:].tolist()
    return Generated(tokens, (top[:, 0] - top[:, 1]).tolist(), [float(logprobs[n, t]) for n, t in enumerate(tokens)])


def same_tokens(ours: list[int], theirs: Generated) -> bool:
    """Equal, or parted first where their two best candidates tie. Fails the test otherwise; False for a tie, to be counted."""
    if ours == theirs.tokens:
        return True
    at = next(n for n, (one, other) in enumerate(zip(ours, theirs.tokens, strict=True)) if one != other)
    assert theirs.gaps[at] <= TIE, f"token {at}: {ours[at]} for {theirs.tokens[at]}, {theirs.gaps[at]} nats apart"
    return False
