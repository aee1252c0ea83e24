"""The last layer and the log-probabilities of chosen tokens, without ever holding the logits of all of them.

A slice of tokens at a time: its logits, its log-probabilities, and, where the head is frozen, at once the gradient of each
log-probability with respect to its hidden state, so that the backward pass is a multiplication (as Liger's fused loss does for a
sum; here each token keeps its own, for a preference loss weighs rows later). A head that trains is computed again instead.
Tensor names carry their axes: N tokens, C tokens of a slice, H hidden, V vocabulary.
"""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from torch.utils.checkpoint import checkpoint

from tunesmith.train.method import Model

MAX_LOGITS = 2**23
"""Of one slice: 32 MiB in float32."""
MIN_SLICE = 16
TRIED = 8
"""Tokens with which it is tried whether hidden states and head give the model's own logits."""

_is_plain: WeakKeyDictionary[Model, bool] = WeakKeyDictionary()


class Chosen(NamedTuple):
    logps_N: torch.Tensor
    """Natural logarithms, float32."""
    right_N: torch.Tensor
    """Is it the likeliest token?"""


def chosen(model: Model, hidden_NH: torch.Tensor, targets_N: torch.Tensor) -> Chosen:
    """The log-probability of each target after its hidden state."""
    head = causal(model).get_output_embeddings()
    if _is_frozen_matrix(head):
        return Chosen(*_FrozenHead.apply(hidden_NH, head.weight, targets_N))
    slices = zip(hidden_NH.split(_slice(head.weight)), targets_N.split(_slice(head.weight)), strict=True)
    found = [checkpoint(_score, head, hidden, targets, use_reentrant=False) for hidden, targets in slices]
    return Chosen(torch.cat([logps for logps, _ in found]), torch.cat([right for _, right in found]))


def counts_hidden_states(model: Model) -> bool:
    """Are the model's logits its head's output on the hidden states that it tells, not scaled or capped after?

    Tried once, on a few tokens. No for a model that puts virtual tokens before a row.
    """
    model = alone(model)
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return False
    inner = causal(model)
    if inner not in _is_plain:
        _is_plain[inner] = _try(inner)
    return _is_plain[inner]


def causal(model: Model) -> Any:
    """The transformers model within wrappers of several processes and of PEFT."""
    model = alone(model)
    return model.get_base_model() if isinstance(model, PeftModel) else model


def alone(model: Model) -> Model:
    """The model without the wrapper that exchanges its gradients with other processes."""
    return model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model


@torch.no_grad()
def _try(inner: Any) -> bool:
    head = inner.get_output_embeddings()
    if head is None:
        return False
    was_training = inner.training
    inner.eval()
    ids = torch.arange(TRIED, device=head.weight.device)[None]
    found = inner(input_ids=ids, use_cache=False, output_hidden_states=[-1])
    inner.train(was_training)
    return found.hidden_states is not None and torch.allclose(head(found.hidden_states[-1]), found.logits, rtol=1e-4, atol=1e-4)


def _is_frozen_matrix(head: torch.nn.Module) -> bool:
    return type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad


def _slice(weight_VH: torch.Tensor) -> int:
    return max(MIN_SLICE, MAX_LOGITS // weight_VH.shape[0])


def _score(head: torch.nn.Module, hidden_CH: torch.Tensor, targets_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits_CV = head(hidden_CH).float()
    wanted_C = logits_CV.gather(1, targets_C[:, None])[:, 0]
    return wanted_C - logits_CV.logsumexp(1), logits_CV.detach().argmax(1) == targets_C


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = _slice(weight_VH)
        logps_N = torch.empty(len(hidden_NH), device=hidden_NH.device)
        right_N = torch.empty(len(hidden_NH), dtype=torch.bool, device=hidden_NH.device)
        slopes_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden_NH), size):
            part = slice(start, start + size)
            targets_C = targets_N[part]
            logits_CV = torch.mm(hidden_NH[part], weight_VH.T).float()
            highest = logits_CV.max(1, keepdim=True)
            wanted_C1 = logits_CV.gather(1, targets_C[:, None]) - highest.values
            logits_CV.sub_(highest.values).exp_()
            total_C1 = logits_CV.sum(1, keepdim=True)
            logps_N[part] = (wanted_C1 - total_C1.log())[:, 0]
            right_N[part] = highest.indices[:, 0] == targets_C
            if slopes_NH is not None:
                expected_CH = torch.mm(logits_CV.div_(total_C1).to(weight_VH.dtype), weight_VH)
                slopes_NH[part] = weight_VH[targets_C] - expected_CH
        ctx.mark_non_differentiable(right_N)
        if slopes_NH is not None:
            ctx.save_for_backward(slopes_NH)
        return logps_N, right_N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slopes_NH,) = ctx.saved_tensors
        return slopes_NH * grads[0][:, None].to(slopes_NH.dtype), None, None
