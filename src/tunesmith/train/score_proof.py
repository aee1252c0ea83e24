"""The proof for a reward model: trainer and engine render each whole conversation to the same ids, and give it the same score."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from tunesmith.models.catalog import Base
from tunesmith.serving.upstream import Adapter, Upstream
from tunesmith.train.conversations import Conversation, Ids
from tunesmith.train.proof import BOUNDS, Asker, ScoreProof, ServedDiffers, distance, dtype_on, explained


class Scored(NamedTuple):
    """A row as the engine has it."""

    ids: Ids
    score: float


def check_scores(
    model: torch.nn.Module, base: Base, adapter: Adapter, conversations: Sequence[Conversation], upstream: Upstream, device: str
) -> ScoreProof:
    """Asks both, and stops the engine. Raises ServedDiffers, and EngineFailed or Busy where there is no engine to ask."""
    trained = trained_scores(model, conversations, device)
    asker = Asker(upstream, base.id, adapter, base.max_positions)

    async def scored(conversation: Conversation) -> list[Scored]:
        told = [await asker.ask("/v1/score", whole | {"return_token_ids": True}) for whole in conversation.wholes]
        return [Scored(tuple(each["data"][0]["token_ids"]), each["data"][0]["score"]) for each in told]

    with explained(model, adapter):
        return compare(conversations, trained, asker.all(conversations, scored), dtype_on(device))


@torch.no_grad()
def trained_scores(model: torch.nn.Module, conversations: Sequence[Conversation], device: str) -> list[list[float]]:
    """Of each row of each conversation. The model is left in the mode that it was in."""
    was_training = model.training
    model.eval()
    found = [
        [float(model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[0, 0]) for row in conversation.rows]
        for conversation in conversations
    ]
    model.train(was_training)
    return found


def compare(
    conversations: Sequence[Conversation], trained: Sequence[list[float]], found: Sequence[list[Scored]], dtype: torch.dtype
) -> ScoreProof:
    """Raises ServedDiffers with what differs most."""
    for number, (conversation, told) in enumerate(zip(conversations, found, strict=True), start=1):
        for row, scored in zip(conversation.rows, told, strict=True):
            if row != scored.ids:
                raise ServedDiffers(
                    f"Conversation {number} is rendered otherwise when it is served: {len(scored.ids)} tokens, and {len(row)} in "
                    "training that are not the same.",
                    hint="Was the base's chat template or tokenizer changed?",
                )
    apart = [
        (distance(mine, theirs.score), number)
        for number, (ours, told) in enumerate(zip(trained, found, strict=True), start=1)
        for mine, theirs in zip(ours, told, strict=True)
    ]
    worst, number = max(apart)
    mean = sum(each for each, _ in apart) / len(apart)
    if worst > BOUNDS[dtype].most(mean) or mean > BOUNDS[dtype].mean:
        raise ServedDiffers(
            f"What is served differs from what was trained: scores are {mean:.2g} apart in the mean (at most "
            f"{BOUNDS[dtype].mean:g}) and {worst:.2g} at worst (at most {BOUNDS[dtype].most(mean):.2g}), in "
            f"conversation {number}."
        )
    return ScoreProof(len(conversations), len(apart), mean, worst, str(dtype).removeprefix("torch."))
