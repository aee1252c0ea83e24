"""Computes a step: an unmodified transformers model on the tokens that the scheduler chose. Knows nothing of requests or HTTP."""

import torch

from tunesmith.engine.adapters import Adapters
from tunesmith.engine.cache import SlotCache
from tunesmith.engine.sampler import log_probabilities, sample
from tunesmith.engine.scheduler import Limits, Step, Work, power_of_two
from tunesmith.engine.sequence import Sampled, Sequence, TokenLogprob
from tunesmith.errors import InvalidRequest
from tunesmith.models.catalog import Base
from tunesmith.models.loader import is_nf4, load_base
from tunesmith.types import Quantization

CACHE_BYTES = 1 << 30
"""Memory for keys and values, unless one sequence of full length needs more."""
UNPACK_BYTES = 4 << 30
"""NF4 layers that take less than this in float32 are unpacked once, on a CPU."""


class Runner:
    """One model with its cache and its adapters."""

    def __init__(self, base: Base, quantization: Quantization, *, device: str = "cpu", dtype: torch.dtype = torch.float32):
        self.base = base
        self.device = torch.device(device)
        self.model = load_base(base, quantization, dtype=dtype, device=device)
        if self.device.type == "cpu":
            unpack_nf4(self.model)
        config = self.model.config.get_text_config()
        self._num_layers = config.num_hidden_layers
        self._takes_bool_mask = config._attn_implementation == "sdpa"
        self.cache = SlotCache(self._num_layers, self.device)
        self.adapters = Adapters(self.model, base.revision, quantization)
        self.check()
        self.limits = self._limits()

    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a completion, as the model's own files tell."""
        told = [self.model.generation_config.eos_token_id, self.model.config.get_text_config().eos_token_id]
        flat = [token for item in told for token in (item if isinstance(item, list) else [item])]
        return frozenset(token for token in flat if token is not None)

    def _limits(self) -> Limits:
        """As many tokens in the cache as fit into CACHE_BYTES, but at least one sequence of full length."""
        layer = self.cache.layers[0]
        per_position = self._num_layers * layer.keys[0, :, 0].nbytes * 2
        return Limits(max_cache_tokens=max(power_of_two(self.base.max_positions), CACHE_BYTES // per_position))

    @torch.inference_mode()
    def run(self, step: Step, running: list[Sequence]) -> list[Sampled | None]:
        """Makes a step's copies and computes its works; for each work that reaches its sequence's end the next token.

        Log-probabilities of a prompt are put on its sequence.
        """
        self.cache.copy(step.copies)
        if not step.works:
            return []
        works = step.works
        sequences = [work.sequence for work in works]
        self.adapters.grouping.set([sequence.adapter for sequence in sequences], self.device)
        asks_prompt = any(s.sampling.prompt_logprobs and start < s.num_prompt_tokens for s, start, _ in works)
        logits = self.forward(
            [work.sequence.tokens[work.start : work.start + work.count] for work in works],
            [sequence.slot or 0 for sequence in sequences],
            [work.start for work in works],
            len(running),
            max(len(sequence.tokens) for sequence in running),
            num_logits=max(work.count for work in works) if asks_prompt else 1,
        )
        if asks_prompt:
            for row, work in enumerate(works):
                self._report_prompt(logits[row, -work.count :], work)
        ends = [row for row, work in enumerate(works) if work.is_last]
        answers: list[Sampled | None] = [None] * len(works)
        if ends:
            last = logits[:, -1] if len(ends) == len(works) else logits[ends, -1]
            for row, answer in zip(ends, sample(last, [sequences[row] for row in ends]), strict=True):
                answers[row] = answer
        return answers

    def forward(
        self, ids: list[list[int]], slots: list[int], starts: list[int], num_slots: int, longest: int, num_logits: int = 1
    ) -> torch.Tensor:
        """Logits [B, num_logits, V] of the last columns; row i holds `ids[i]`, which stand from position `starts[i]` on.

        Short rows are padded at the left, so that all end in the same column and the head computes that one only. Padding is not
        written to the cache, and no token looks at it.
        """
        counts = [len(row) for row in ids]
        width = max(counts)
        self.cache.begin(slots, starts, counts, num_slots, longest)
        input_ids = torch.tensor([[0] * (width - len(row)) + row for row in ids], device=self.device)
        positions = torch.tensor(
            [[start] * (width - count) + list(range(start, start + count)) for start, count in zip(starts, counts, strict=True)],
            device=self.device,
        )
        seen = torch.arange(self.cache.places.length, device=self.device) <= positions[:, None, :, None]
        output = self.model(
            input_ids=input_ids,
            attention_mask=seen if self._takes_bool_mask else self._additive(seen),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=num_logits,
        )
        return output.logits

    def _additive(self, seen: torch.Tensor) -> torch.Tensor:
        dtype = self.model.dtype
        return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)

    def _report_prompt(self, logits_CV: torch.Tensor, work: Work) -> None:
        """Column c predicts the token at start + c + 1."""
        sequence, start, count = work
        wanted = sequence.sampling
        if not wanted.prompt_logprobs or wanted.num_logprobs is None:
            return
        known = sequence.prompt_logprobs
        if not known:
            known.append(TokenLogprob(sequence.tokens[0], None))
        predicted = sequence.tokens[start + 1 : min(start + count + 1, sequence.num_prompt_tokens)]
        known += log_probabilities(logits_CV[: len(predicted)], predicted, [wanted.num_logprobs] * len(predicted))

    @torch.inference_mode()
    def check(self) -> None:
        """Computes a few tokens in two pieces and at once without our cache. Raises InvalidRequest when they differ.

        An architecture whose attention or positions need more than keys, values and a mask (sliding windows, recurrent
        states) would answer wrongly; it is refused instead.
        """
        num_tokens = min(24, self.base.max_positions)
        vocabulary = self.model.config.get_text_config().vocab_size
        ids = [(7 * n + 3) % vocabulary for n in range(num_tokens)]
        whole = self.model(torch.tensor([ids], device=self.device), use_cache=False).logits[0, -1].float()
        half = num_tokens // 2
        self.forward([ids[:half]], [0], [0], 1, half)
        pieces = self.forward([ids[half:]], [0], [half], 1, num_tokens)[0, -1].float()
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 0.1
        if (whole - pieces).abs().max() > tolerance * (1 + whole.abs().max()):
            raise InvalidRequest(
                f"The embedded engine cannot serve {self.base.id}: its architecture needs more than a plain cache.",
                hint="Serve it with another engine.", code="architecture_not_supported",
            )


def unpack_nf4(model: torch.nn.Module) -> None:
    """Puts the same numbers in float32 in place of NF4 layers, if that is not too much memory.

    A CPU multiplies by an NF4 weight by unpacking it at each step; unpacked once, the results are the same and come sooner.
    """
    packed = {name: module for name, module in model.named_modules() if is_nf4(module)}
    if sum(module.in_features * module.out_features for module in packed.values()) * 4 > UNPACK_BYTES:
        return
    for name, module in packed.items():
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
        plain.weight = torch.nn.Parameter(unpacked(module), requires_grad=False)
        plain.bias = module.bias
        model.set_submodule(name, plain)


def unpacked(module: torch.nn.Module) -> torch.Tensor:
    """[out, in] the weight that an NF4 layer multiplies by: bitsandbytes' own operations, as its backward pass has them."""
    ops, state = torch.ops.bitsandbytes, module.weight.quant_state
    absmax = state.absmax
    if state.nested:
        inner = state.state2
        absmax = ops.dequantize_blockwise.default(absmax, inner.absmax, inner.code, inner.blocksize, inner.dtype) + state.offset
    weight: torch.Tensor = ops.dequantize_4bit.default(
        module.weight.data, absmax.float(), state.blocksize, state.quant_type, state.shape, state.dtype
    )
    return weight
