"""What an adapter loses on a base of another precision: both models side by side, row by row. Knows no engine."""

from collections.abc import Sequence

import torch
from torch.nn.functional import kl_div

from tunesmith.models.drift import Drift
from tunesmith.train.conversations import Conversation


@torch.no_grad()
def measure(here: torch.nn.Module, there: torch.nn.Module, conversations: Sequence[Conversation], device: str) -> Drift:
    """From the model that was trained to the same adapter on another precision; both in eval mode."""
    kl, worst, loss, loss_there, tokens, trained = 0.0, 0.0, 0.0, 0.0, 0, 0
    for conversation in conversations:
        for row, mask in zip(conversation.rows, conversation.masks, strict=True):
            ids_T, mask_T = torch.tensor(row, device=device), torch.tensor(mask, device=device)[1:]
            mine_TV, theirs_TV = (_scores(model, ids_T) for model in (here, there))
            apart_T = kl_div(theirs_TV, mine_TV, reduction="none", log_target=True).sum(-1)
            kl, worst, tokens = kl + float(apart_T.sum()), max(worst, float(apart_T.max())), tokens + len(apart_T)
            loss -= float(_of(mine_TV, ids_T)[mask_T].sum())
            loss_there -= float(_of(theirs_TV, ids_T)[mask_T].sum())
            trained += int(mask_T.sum())
    return Drift(kl / tokens, worst, loss / max(1, trained), loss_there / max(1, trained), tokens, len(conversations))


def _scores(model: torch.nn.Module, ids_T: torch.Tensor) -> torch.Tensor:
    """[T - 1, V] log-probabilities of each next token; a soft prompt's own positions are left out."""
    logits_TV: torch.Tensor = model(input_ids=ids_T[None], use_cache=False).logits[0, -len(ids_T) : -1]
    return logits_TV.float().log_softmax(-1)


def _of(scores_TV: torch.Tensor, ids_T: torch.Tensor) -> torch.Tensor:
    return scores_TV.gather(1, ids_T[1:, None])[:, 0]
