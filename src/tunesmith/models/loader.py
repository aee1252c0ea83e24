"""The one place that reads a base's weights: safetensors from a local folder, never pickle, never the network.

Training and serving load through here, so both stand on the same numbers. Knows nothing of adapters or requests.
"""

from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig
from transformers.utils import logging

from tunesmith.errors import InvalidRequest
from tunesmith.models import int8
from tunesmith.models.catalog import Base
from tunesmith.types import Quantization

SCORE = "score.weight"
"""The head of a reward model, one row of hidden size; transformers' name."""
Head = Literal["words", "score"]
"""What stands on a base: a probability for each token of the vocabulary, or one number for a whole row."""


def load_base(
    base: Base, quantization: Quantization, *, dtype: torch.dtype = torch.float32, device: str = "cpu", head: Head = "words"
) -> torch.nn.Module:
    """The base as a transformers module in eval mode, no weight of which trains.

    `dtype` is that of the weights, and for nf4 that of activations and of what is not quantized. On a CPU use float32: without
    AMX or avx512_bf16, bfloat16 is slower. A head `score` is new and gives 0 to every row, until it is trained.
    Raises InvalidRequest when the files do not hold the model that config.json tells.
    """
    kind: Any = AutoModelForCausalLM if head == "words" else AutoModelForSequenceClassification
    logging.disable_progress_bar()
    try:
        model, report = kind.from_pretrained(
            base.folder,
            dtype=dtype,
            device_map={"": "cpu" if quantization == "int8" else device},
            quantization_config=_quantization(quantization, dtype, head),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({} if head == "words" else {"num_labels": 1}),
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InvalidRequest(f"{base.id} cannot be loaded: {error}.", hint="Look at its config.json.") from error
    missing = sorted(set(report["missing_keys"]) - {SCORE}) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise InvalidRequest(f"The weights of {base.id} lack {missing[0]}.", hint="The files are incomplete; get them again.")
    if head == "score":
        model.score.weight.data.zero_()
    model.requires_grad_(False)
    model.eval()
    if quantization == "int8":
        # Made before it is moved: the device need never hold more than the int8 weights.
        int8.quantize(model, model.score if head == "score" else model.get_output_embeddings())
        model.to(device)
    _keep_exact(model)
    if device == "cpu":
        _refuse_split_blocks(model, base)
    return model


def _quantization(quantization: Quantization, dtype: torch.dtype, head: Head) -> BitsAndBytesConfig | None:
    """NF4 with double quantization (Dettmers et al. 2023). The compute dtype is said, since the default differs by caller."""
    if quantization != "nf4":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["score"] if head == "score" else None,
    )


def _keep_exact(model: torch.nn.Module) -> None:
    """Evaluation computes what training computed.

    With avx512_bf16, bitsandbytes repacks a weight at the first forward in eval mode and rounds to bfloat16 from then on.
    """
    for module in model.modules():
        if is_nf4(module):
            module.support_avx512bf16_for_cpu = False


def _refuse_split_blocks(model: torch.nn.Module, base: Base) -> None:
    """Raises InvalidRequest for an NF4 layer whose rows are no whole blocks.

    bitsandbytes 0.50.2 unpacks such a layer wrongly on a CPU: it begins a new block with every row, so that weights come out
    with another block's scale (32 % off instead of 9 % at a width of 32, measured).
    """
    for name, module in model.named_modules():
        if is_nf4(module) and module.in_features % module.weight.quant_state.blocksize:
            raise InvalidRequest(
                f"{base.id} cannot be used as nf4 on a CPU: {name} has rows of {module.in_features}, no multiple of 64.",
                hint="Use quantization none.", param="quantization",
            )


def is_nf4(module: torch.nn.Module) -> bool:
    """Is it a quantized layer? Told by name: importing bitsandbytes takes seconds, which an unquantized base need not wait."""
    return type(module).__name__ == "Linear4bit"
