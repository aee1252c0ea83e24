"""Draws the next tokens from logits. A row's draw depends on its own logits and its own random numbers, not on the batch."""

import torch

from tunesmith.engine.sequence import Sampled, Sampling, Sequence, TokenLogprob
from tunesmith.errors import EngineFailed

NUCLEUS = 256
"""Tokens that top-p looks at first: sorting a large vocabulary costs tens of milliseconds, and the nucleus is seldom wider."""

LOWEST = -9999.0
"""OpenAI's log-probability of what cannot come; JSON has no infinity."""


def sample(logits_RV: torch.Tensor, sequences: list[Sequence]) -> list[Sampled]:
    """The next token of each sequence, row by row, with log-probabilities where asked; an error for a row that has none."""
    logits_RV = logits_RV.float()
    samplings = [sequence.sampling for sequence in sequences]
    best = logits_RV.max(-1)
    tokens = best.indices
    is_good = torch.isfinite(best.values).tolist()
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0 and is_good[row]]
    for rows, narrow in ((wide_rows(drawn, samplings), False), (narrow_rows(drawn, samplings), True)):
        if rows:
            temperature = torch.tensor([samplings[row].temperature for row in rows], device=logits_RV.device)
            probs = torch.softmax(logits_RV[rows] / temperature[:, None], -1)
            uniforms = [sequences[row].random.random() for row in rows]
            uniform = torch.tensor(uniforms, dtype=torch.float64, device=logits_RV.device)
            top_p = torch.tensor([samplings[row].top_p for row in rows], device=logits_RV.device)
            tokens[rows] = draw_nucleus(probs, top_p, uniform) if narrow else draw(probs, uniform)
    chosen = tokens.tolist()
    reported = log_probabilities(logits_RV, chosen, [sampling.num_logprobs for sampling in samplings])
    failure = EngineFailed("The model computed no valid probabilities for this request.")
    return [reported[row] if good else failure for row, good in enumerate(is_good)]


def wide_rows(rows: list[int], samplings: list[Sampling]) -> list[int]:
    return [row for row in rows if samplings[row].top_p >= 1]


def narrow_rows(rows: list[int], samplings: list[Sampling]) -> list[int]:
    return [row for row in rows if samplings[row].top_p < 1]


def draw(probs_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """[B] the index at which the sum of probabilities passes `uniform` times their total."""
    sums = probs_BV.cumsum(-1, dtype=torch.float64)
    wanted = uniform_B[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, wanted, right=True)[:, 0].clamp_(max=probs_BV.shape[-1] - 1)


def draw_nucleus(probs_BV: torch.Tensor, top_p_B: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """[B] drawn from the likeliest tokens that together reach `top_p` (Holtzman et al. 2020); at least one."""
    top = probs_BV.topk(min(NUCLEUS, probs_BV.shape[-1]), -1)
    if (top.values.sum(-1) < top_p_B).any():
        top = probs_BV.sort(-1, descending=True)
    before = top.values.cumsum(-1) - top.values
    kept = torch.where(before < top_p_B[:, None], top.values, 0.0)
    kept[:, 0] = top.values[:, 0]
    return top.indices.gather(-1, draw(kept, uniform_B)[:, None])[:, 0]


def log_probabilities(logits_BV: torch.Tensor, tokens: list[int], nums: list[int | None]) -> list[TokenLogprob]:
    """The log-probability of each row's token, and the `nums[row]` likeliest; computed only for rows that ask (not None)."""
    rows = [row for row, num in enumerate(nums) if num is not None]
    answers = [TokenLogprob(token, None) for token in tokens]
    if not rows:
        return answers
    logprobs = torch.log_softmax(logits_BV[rows].float(), -1).clamp_(min=LOWEST)
    most = max(num or 0 for num in nums)
    top = logprobs.topk(most, -1)
    top_ids, top_values = top.indices.tolist(), top.values.tolist()
    for at, row in enumerate(rows):
        num = nums[row]
        likeliest = tuple(zip(top_ids[at][:num], top_values[at][:num], strict=True))
        answers[row] = TokenLogprob(tokens[row], float(logprobs[at, tokens[row]]), likeliest)
    return answers
