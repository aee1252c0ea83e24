"""Draws the next tokens from logits. A row's draw depends on its own logits and its own random numbers, not on the batch."""

import torch

from tunesmith.engine.logits import shape
from tunesmith.engine.sequence import Sampled, Sampling, Sequence, TokenLogprob
from tunesmith.errors import EngineFailed

NUCLEUS = 256
"""Tokens that top-k, top-p and min-p look at first: sorting a large vocabulary costs tens of milliseconds, and what they keep
is seldom more."""

COLDEST = 1e-5
"""A temperature below this is greedy: the quotient would leave float32."""

CHUNK = 256
"""Tokens whose probabilities are summed at once when one is drawn."""

ALL = 1 << 24
"""Stands for no top-k: more than any vocabulary, and exact in float32."""

LOWEST = -9999.0
"""OpenAI's log-probability of what cannot come; JSON has no infinity."""


def sample(logits_RV: torch.Tensor, sequences: list[Sequence]) -> list[Sampled]:
    """The next token of each sequence, row by row, with log-probabilities where asked; an error for a row that has none."""
    logits_RV = logits_RV.float()
    samplings = [sequence.sampling for sequence in sequences]
    shaped_RV, failures = shape(logits_RV, sequences)
    best = shaped_RV.max(-1)
    tokens = best.indices
    is_good = torch.isfinite(best.values)
    if shaped_RV is not logits_RV:
        is_good &= torch.isfinite(logits_RV.max(-1).values)
    goods = is_good.tolist()
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature >= COLDEST and goods[row]]
    if drawn:
        tokens[drawn] = draw_rows(shaped_RV, drawn, sequences)
    chosen = tokens.tolist()
    reported = log_probabilities(logits_RV, chosen, [sampling.num_logprobs for sampling in samplings])
    failure = EngineFailed("The model computed no valid probabilities for this request.")
    return [failures.get(row, reported[row] if good else failure) for row, good in enumerate(goods)]


def draw_rows(logits_RV: torch.Tensor, rows: list[int], sequences: list[Sequence]) -> torch.Tensor:
    """[len(rows)] a drawn token for each of `rows`."""
    samplings = [sequences[row].sampling for row in rows]
    temperature_D = torch.tensor([sampling.temperature for sampling in samplings], device=logits_RV.device)
    probs_DV = torch.softmax(logits_RV[rows] / temperature_D[:, None], -1)
    uniforms = [sequences[row].random.random() for row in rows]
    uniform_D = torch.tensor(uniforms, dtype=torch.float64, device=logits_RV.device)
    narrow = [at for at, sampling in enumerate(samplings) if is_narrow(sampling)]
    if not narrow:
        return draw(probs_DV, uniform_D)
    if len(narrow) == len(rows):
        return draw_narrow(probs_DV, samplings, uniform_D)
    tokens_D = draw(probs_DV, uniform_D)
    tokens_D[narrow] = draw_narrow(probs_DV[narrow], [samplings[at] for at in narrow], uniform_D[narrow])
    return tokens_D


def is_narrow(sampling: Sampling) -> bool:
    """Are some tokens left out because others are likelier?"""
    return sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0


def draw(probs_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """[B] the index at which the sum of probabilities passes `uniform` times their total; never one of probability 0.

    First by sums of CHUNK tokens, then inside the chunk: a running sum over a large vocabulary takes ten times as long.
    """
    num_rows, num_tokens = probs_BV.shape
    chunks_BNC = torch.nn.functional.pad(probs_BV, (0, -num_tokens % CHUNK)).view(num_rows, -1, CHUNK)
    sums_BN = chunks_BNC.sum(-1).cumsum(-1, dtype=torch.float64)
    wanted_B1 = uniform_B[:, None] * sums_BN[:, -1:]
    chunk_B1 = torch.searchsorted(sums_BN, wanted_B1, right=True).clamp_(max=sums_BN.shape[-1] - 1)
    before_B1 = torch.where(chunk_B1 > 0, sums_BN.gather(-1, (chunk_B1 - 1).clamp_(min=0)), 0.0)
    inside_BC = chunks_BNC[torch.arange(num_rows, device=probs_BV.device), chunk_B1[:, 0]].cumsum(-1, dtype=torch.float64)
    # The two ways to sum differ in the last bits: the wanted sum must not lie beyond the chunk's.
    rest_B1 = torch.minimum(wanted_B1 - before_B1, inside_BC[:, -1:] * (1 - 2**-50))
    return (chunk_B1 * CHUNK + torch.searchsorted(inside_BC, rest_B1, right=True))[:, 0]


def draw_narrow(probs_BV: torch.Tensor, samplings: list[Sampling], uniform_B: torch.Tensor) -> torch.Tensor:
    """[B] drawn from what top-k, top-p and min-p keep. Rows that keep more than NUCLEUS tokens are sorted whole: exact."""
    top = probs_BV.topk(min(NUCLEUS, probs_BV.shape[-1]), -1)
    kept_BK, is_whole_B = keep(top.values, samplings)
    tokens_B = top.indices.gather(-1, draw(kept_BK, uniform_B)[:, None])[:, 0]
    if top.values.shape[-1] < probs_BV.shape[-1] and not bool(is_whole_B.all()):
        wide = (~is_whole_B).nonzero()[:, 0]
        every = probs_BV[wide].sort(dim=-1, descending=True, stable=True)
        kept_WV, _ = keep(every.values, [samplings[at] for at in wide.tolist()])
        tokens_B[wide] = every.indices.gather(-1, draw(kept_WV, uniform_B[wide])[:, None])[:, 0]
    return tokens_B


def keep(probs_BK: torch.Tensor, samplings: list[Sampling]) -> tuple[torch.Tensor, torch.Tensor]:
    """Descending probabilities, 0 for what is left out; and [B] whether nothing beyond K would have been kept.

    min-p (Nguyen et al. 2024) and top-k first, then top-p (Holtzman et al. 2020) of what they leave; at least one token.
    """
    num_looked = probs_BK.shape[-1]
    wanted = [(s.min_p, s.top_k or ALL, s.top_p) for s in samplings]
    min_p_B1, top_k_B1, top_p_B1 = torch.tensor(wanted, device=probs_BK.device).T[:, :, None]
    is_left = (torch.arange(num_looked, device=probs_BK.device) < top_k_B1) & (probs_BK >= min_p_B1 * probs_BK[:, :1])
    left_BK = probs_BK * is_left
    sums_BK = left_BK.cumsum(-1)
    is_limited = (top_k_B1 < ALL) | (min_p_B1 > 0)
    total_B1 = torch.where(is_limited, sums_BK[:, -1:], 1.0)
    is_nucleus = (sums_BK - left_BK < top_p_B1 * total_B1) | (top_p_B1 >= 1)
    is_nucleus[:, 0] = True
    is_whole = ~is_left[:, -1:] | (top_k_B1 <= num_looked) | (~is_limited & (sums_BK[:, -1:] >= top_p_B1))
    return left_BK * is_nucleus, is_whole[:, 0]


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
