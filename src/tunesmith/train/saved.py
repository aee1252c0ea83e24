"""An adapter's folder and the model that it was saved from: does it hold what the model has? And the model made of it anew."""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from tunesmith.errors import TunesmithError
from tunesmith.models.artifact import WEIGHTS, RawTensor, read_adapter, read_tensors

PREFIX = "base_model.model."


def load_adapter(base: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """`base`, which becomes part of it, with the adapter in `folder` as PEFT computes it; in eval mode."""
    model: torch.nn.Module = PeftModel.from_pretrained(base, str(folder), local_files_only=True)
    return model.eval()


def saved_otherwise(model: torch.nn.Module, folder: Path) -> str:
    """The first difference as a sentence; empty where the folder holds what the model has."""
    if not isinstance(model, PeftModel):
        return ""
    tensors = read_tensors(folder / WEIGHTS)
    mine = {name: _raw(tensor) for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    odd = sorted(mine.keys() ^ tensors.keys())
    if odd:
        return f"The tensor {odd[0]} was {'not saved' if odd[0] in mine else 'saved and not trained'}."
    for name in sorted(mine):
        if mine[name].data != tensors[name].data:
            return f"The tensor {name} was saved otherwise than it was trained."
    return _scaled_otherwise(model, folder)


def _scaled_otherwise(model: PeftModel, folder: Path) -> str:
    try:
        info = read_adapter(folder)
    except TunesmithError:  # the engine has said so already
        return ""
    own = dict(info.scalings)
    for whole_name, module in model.named_modules():
        if isinstance(module, LoraLayer) and "default" in module.scaling:
            name, mine = whole_name.removeprefix(PREFIX), float(module.scaling["default"])
            told = own.get(name, info.scaling)
            if abs(mine - told) > 1e-9:
                return f"The scale of {name} is saved as {told:g}, and was {mine:g} in training."
    return ""


def _raw(tensor: torch.Tensor) -> RawTensor:
    data = tensor.detach().cpu().contiguous()
    return RawTensor(str(data.dtype), tuple(data.shape), data.flatten().view(torch.uint8).numpy().tobytes())
