"""How a run uses its machine: packing, recompute, optimizer, offload, processes. None of these changes what is learned by more
than rounding, but the 8-bit optimizers do a little. No torch; `refuse` says what cannot run on the machine at hand.
"""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.errors import InvalidRecipe
from tunesmith.recipes.method import Part

PROMPT_KINDS = frozenset({"prompt", "p_tuning", "prefix"})
"""Kinds of adapter that put tokens before a row, which a packed line could do for its first document only."""


class ComputeRecipe(Part):
    """The machine's part of a run. What is None is chosen by the preflight, or as the field says."""

    packing: bool | None = None
    """Rows of a step stand one after another in one line without padding, each seeing only itself: 2.1 times (3 times with varlen
    kernels) the padded rate on a GPU (torchtune's and Unsloth's published ablations). None packs where that is right, and groups
    rows of like length elsewhere; true refuses where it is not right; false pads."""
    packing_length: Annotated[int, Field(ge=64, le=1_048_576)] | None = None
    """Tokens of one forward pass when packing, at least the longest row's; None means 8,192 on a GPU, where fewer pay for
    unpacking 4-bit weights too often, and 1,024 on a CPU, a guess: longer lines cost memory, and there is little to launch."""
    recompute: Literal["none", "all"] | Annotated[int, Field(ge=2, le=1000)] | None = None
    """Layers whose activations are computed again in the backward pass: none (4 N FLOPs a token for LoRA), every n-th, all (6 N).
    None means none, unless the preflight finds that memory is short."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """AdamW with moments of 4 bytes each, or of 1 byte (Dettmers et al. 2022; -20 % memory when all weights train, torchtune's
    ablation, little for LoRA); paged moves them to the host when the GPU is full. A LoRA's moments are small: 4 bytes."""
    offload_activations: bool = False
    """What recomputing needs waits for it in the host's memory: 5 % less of the GPU's (torchtune's ablation), and slower. With
    `recompute` left open all layers are recomputed."""
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes that share each step's rows on this machine, one for each GPU, by accelerate; the step stays the same."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """GiB that the run may take on its device; the preflight cuts steps so that it does, or refuses. None means what is free: of
    a CPU's nine tenths."""
    usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    """What this machine costs; with it the run's dollars are foretold and told."""


def refuse(compute: ComputeRecipe, *, adapter: str, num_gpus: int) -> None:
    """Raises InvalidRecipe, naming the field, for what this machine or this kind of adapter cannot do."""
    if compute.packing and adapter in PROMPT_KINDS:
        raise InvalidRecipe(
            f"compute.packing: {adapter} puts tokens before each row, which rows in one line do not have.",
            hint="Leave compute.packing out: rows of like length then share a batch.", param="compute.packing",
        )
    if compute.recompute not in (None, "none") and adapter == "prefix":
        raise InvalidRecipe(
            "compute.recompute: a prefix is a cache, which recomputing drops.",
            hint="Set compute.recompute to none, and a smaller method.micro_batch_size.", param="compute.recompute",
        )
    if num_gpus == 0 and compute.optimizer == "paged_adamw_8bit":
        raise InvalidRecipe(
            "compute.optimizer: there is no GPU here to page from.", hint="Use adamw_8bit.", param="compute.optimizer"
        )
    if num_gpus == 0 and compute.offload_activations:
        raise InvalidRecipe(
            "compute.offload_activations: there is no GPU here whose memory it would spare.",
            hint="Set compute.recompute, which works on a CPU too.", param="compute.offload_activations",
        )
    if compute.offload_activations and compute.recompute == "none":
        raise InvalidRecipe(
            "compute.offload_activations: what waits is what recomputing needs, and compute.recompute is none.",
            hint="Leave compute.recompute out, or set it to all.", param="compute.offload_activations",
        )
    if 0 < num_gpus < compute.processes:
        raise InvalidRecipe(
            f"compute.processes: {compute.processes} processes need as many GPUs, and there are {num_gpus}.",
            hint=f"Set it to {num_gpus}.", param="compute.processes",
        )
