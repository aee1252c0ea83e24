"""Carries out a step: copies in the cache, the forward of whatever model there is, the next tokens. Knows no HTTP."""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

import torch

from tunesmith.engine.adapters import Adapters, Target
from tunesmith.engine.batch import Batch, Row
from tunesmith.engine.blocks import BLOCK
from tunesmith.engine.cache import RowCache, power_of_two
from tunesmith.engine.parity import Computes
from tunesmith.engine.sampler import log_probabilities, sample
from tunesmith.engine.scheduler import Copy, Limits, Move, Save, Step, Work
from tunesmith.engine.sequence import Sampled, Sequence, TokenLogprob
from tunesmith.engine.soft import soften
from tunesmith.errors import InvalidRequest, TunesmithError
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base
from tunesmith.models.shelf import read_json
from tunesmith.types import Quantization

Mode = Literal["lean", "module", "single"]
"""Our own forward, the transformers module over our cache, or that module by itself, one request at a time."""

ROW_BYTES = 2 << 30
"""Memory for keys and values of running sequences, unless one sequence of full length needs more. Taken as it is needed."""
BLOCK_BYTES = 1 << 29
"""Memory for stored blocks of prompts that were computed before. Taken as it is needed."""


class Model(Computes, Protocol):
    """What a runner needs of a model."""

    def find(self, name: str) -> Target | None:
        """Where the linear layer of this name is computed."""
        ...


class Runner:
    """One model with its cache and its adapters. Built by `build.build_runner`."""

    def __init__(self, base: Base, model: Model, mode: Mode, quantization: Quantization):
        self.base = base
        self.mode = mode
        self.device = model.device
        self.vocab_size = model.vocab_size
        self.model = model
        self.cache = RowCache(model.num_layers, model.device)
        self.adapters = Adapters(model.find, self._soften, model.device, base.revision, quantization)
        self._sums: WeakKeyDictionary[Sequence, dict[int, torch.Tensor]] = WeakKeyDictionary()
        """For sequences that want an embedding: hidden states, summed up to the last positions where a piece ended."""
        self.before_step: Callable[[int], None] = lambda num_tokens: None
        """Called in the core's thread with the number of tokens that are about to be computed."""
        self._warm_up()
        self.limits = self._limits()

    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a completion, as the base's own files tell."""
        return end_tokens(self.base)

    def _soften(self, info: AdapterInfo, stored: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        if self.mode == "single":
            raise InvalidRequest(
                f"{self.base.id} is computed with a cache of its own, which takes no soft prompt.", hint="Train a LoRA.",
                code="adapter_not_supported",
            )
        return soften(self.model, info, stored)

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """One token: the cache learns its shapes, and the first request does not wait for first calls."""
        self.model.compute(Batch([Row([0], 0, 0)], self.cache), self.cache, torch.tensor([0], device=self.device))

    def _limits(self) -> Limits:
        """As many tokens in the cache as fit into ROW_BYTES, but at least one sequence of full length."""
        longest = power_of_two(self.base.max_positions)
        if self.mode == "single":
            return Limits(max_sequences=1, max_cache_tokens=longest, max_prefill_tokens=longest, max_chunk=longest)
        each = self.cache.nbytes_per_position()
        return Limits(max_cache_tokens=max(longest, ROW_BYTES // each), num_blocks=BLOCK_BYTES // (each * BLOCK))

    @torch.inference_mode()
    def run(self, step: Step, running: list[Sequence]) -> list[Sampled | None]:
        """Makes a step's copies and computes its works; for each work that reaches its sequence's end the next token.

        Log-probabilities of a prompt and embeddings are put on their sequences.
        """
        self._copy(step.copies, running)
        if not step.works:
            return []
        batch = Batch([_row(work) for work in step.works], self.cache)
        self.before_step(batch.num_tokens)
        works = [step.works[index] for index in batch.order]
        asked = [(work, first, work.sequence.wants_embedding) for work, first in zip(works, batch.firsts, strict=True)]
        tokens = [token for work, first, _ in asked for token in _wanted(work, first)]
        wanted_R = torch.tensor(tokens, dtype=torch.long, device=self.device)
        pools = any(pool for _, _, pool in asked)
        logits_RV, hidden_ND = self.model.compute(batch, self.cache, wanted_R, hidden=pools)
        place = 0
        ends: list[tuple[int, int]] = []
        for index, (work, first, pool) in zip(batch.order, asked, strict=True):
            count = len(_wanted(work, first))
            if _reports_prompt(work):
                self._report_prompt(logits_RV[place : place + count], work)
            if pool and hidden_ND is not None:
                head_D = self.adapters.head(work.sequence.adapter)
                if head_D is None:
                    self._pool(hidden_ND[first : first + work.count], work)
                else:
                    _score(hidden_ND[first : first + work.count], work, head_D)
            place += count
            if work.is_last:
                ends.append((index, place - 1))
        return self._sample(step, logits_RV, ends)

    def _copy(self, copies: list[Copy], running: list[Sequence]) -> None:
        """Copies out of rows and then copies into rows. Room is made between them: rows that are left may be longer than all that
        run, or beyond them, and are no longer there afterwards."""
        outward = [copy for copy in copies if isinstance(copy, Move | Save)]
        self.cache.copy(outward, self.adapters.soft_prompts)
        self.cache.reserve(len(running), max([1, *[len(sequence.tokens) for sequence in running]]))
        self.cache.copy(copies[len(outward) :], self.adapters.soft_prompts)

    def _sample(self, step: Step, logits_RV: torch.Tensor, ends: list[tuple[int, int]]) -> list[Sampled | None]:
        """`ends` are pairs of a work's place in the step and its place among the logits."""
        answers: list[Sampled | None] = [None] * len(step.works)
        if not ends:
            return answers
        rows = [row for _, row in ends]
        last_RV = logits_RV if rows == list(range(len(logits_RV))) else logits_RV[rows]
        for (index, _), answer in zip(ends, sample(last_RV, [step.works[index].sequence for index, _ in ends]), strict=True):
            answers[index] = answer
            if isinstance(answer, TunesmithError):
                self.cache.clear(step.works[index].sequence.slot or 0)
        return answers

    def _report_prompt(self, logits_CV: torch.Tensor, work: Work) -> None:
        """Column c predicts the token at start + c + 1."""
        sequence, start, count = work
        known = sequence.prompt_logprobs
        if not known:
            known.append(TokenLogprob(sequence.tokens[sequence.num_virtual], None))
        predicted = sequence.tokens[start + 1 : min(start + count + 1, sequence.num_prompt_tokens)]
        known += log_probabilities(logits_CV[: len(predicted)], predicted, [sequence.sampling.num_logprobs] * len(predicted))

    def _pool(self, hidden_TD: torch.Tensor, work: Work) -> None:
        """Adds a piece of the prompt; at its end the embedding is the mean over its tokens."""
        sequence, start, count = work
        part = hidden_TD[: max(0, sequence.num_prompt_tokens - start)].float().sum(0)
        known = {} if start <= sequence.num_virtual else {start: self._sums[sequence][start]}
        if known:
            part = part + known[start]
        # The sum before this piece stays, for a step that broke is computed again.
        self._sums[sequence] = known | {start + count: part}
        if start + count >= sequence.num_prompt_tokens and sequence.embedding is None:
            sequence.embedding = (part / (sequence.num_prompt_tokens - sequence.num_virtual)).tolist()


def _score(hidden_TD: torch.Tensor, work: Work, head_D: torch.Tensor) -> None:
    """A reward model's one number, of the hidden state of the prompt's last token."""
    sequence, start, count = work
    last = sequence.num_prompt_tokens - 1 - start
    if 0 <= last < count:
        sequence.embedding = [float(hidden_TD[last].float() @ head_D)]


def _row(work: Work) -> Row:
    sequence, start, count = work
    return Row(sequence.tokens[start : start + count], sequence.slot or 0, start, sequence.adapter)


def _wanted(work: Work, first: int) -> range:
    """The tokens of the line whose logits are needed."""
    end = first + work.count
    if _reports_prompt(work):
        return range(first, end)
    return range(end - 1, end) if work.is_last else range(end, end)


def _reports_prompt(work: Work) -> bool:
    wanted = work.sequence.sampling
    return wanted.prompt_logprobs and wanted.num_logprobs is not None and work.start < work.sequence.num_prompt_tokens


def end_tokens(base: Base) -> frozenset[int]:
    """As generation_config.json and config.json tell."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = base.folder / name
        told: Mapping[str, object] = read_json(path) if path.is_file() else {}
        inner = told.get("text_config")
        for value in (told.get("eos_token_id"), inner.get("eos_token_id") if isinstance(inner, dict) else None):
            found |= {token for token in (value if isinstance(value, list) else [value]) if isinstance(token, int)}
    return frozenset(found)
