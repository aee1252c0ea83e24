"""Soft prompts: what an adapter stores becomes keys and values that a row begins with. Knows no rows of the running cache."""

import torch

from tunesmith.engine.batch import Batch, Row
from tunesmith.engine.cache import Pairs, RowCache
from tunesmith.engine.parity import Computes
from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import AdapterInfo


@torch.inference_mode()
def soften(model: Computes, info: AdapterInfo, stored: torch.Tensor) -> Pairs:
    """Keys and values of the virtual tokens, which stand from position 0 on.

    Prompt tuning and p-tuning store embeddings [V, width], which the base computes once. Prefix tuning stores the keys and
    values themselves, [V, layers * 2 * heads * head size], keys as they are after rotation. Raises InvalidRequest when they
    do not fit the base.
    """
    scratch = RowCache(model.num_layers, model.device)
    count = len(stored)
    scratch.reserve(1, count)
    line = Batch([Row([0] * count, 0, 0)], scratch)
    embeds = stored.to(model.device, model.dtype) if info.kind == "prompt" else None
    try:
        model.compute(line, scratch, torch.tensor([count - 1], device=model.device), embeds)
    except RuntimeError as error:
        raise _misfit(info) from error
    if info.kind == "prompt":
        pairs = [scratch.read(layer, slice(1), count) for layer in range(model.num_layers)]
        return [(keys[0].transpose(0, 1).clone(), values[0].transpose(0, 1).clone()) for keys, values in pairs]
    shapes = [keys.shape for keys, _ in (scratch.read(layer, slice(1), count) for layer in range(model.num_layers))]
    heads, head_size = shapes[0][1], shapes[0][3]
    if stored.numel() != count * model.num_layers * 2 * heads * head_size:
        raise _misfit(info)
    planes = stored.to(model.device, model.dtype).view(count, model.num_layers, 2, heads, head_size)
    keys = planes[:, :, 0] if model.key_order is None else planes[:, :, 0][..., model.key_order]
    return [(keys[:, layer].contiguous(), planes[:, layer, 1].contiguous()) for layer in range(model.num_layers)]


def _misfit(info: AdapterInfo) -> InvalidRequest:
    return InvalidRequest(
        f"The soft prompt in {info.path} does not have the base's size.", hint="Serve the base that it was trained on.",
        code="adapter_not_supported",
    )
