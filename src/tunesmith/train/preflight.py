"""Before the first step: does the run fit, and how is a step cut so that it does? A plan by arithmetic, then one dry step on
the longest real batch, which says what the plan could not know.

Chosen are the rows of a forward pass, or the tokens of a packed one, and which layers compute again; what a recipe says is
kept. A resumed run keeps what its checkpoint says, so that its bits do not depend on the memory of the day. The dry step
changes nothing: its gradients are dropped and the random states put back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from tunesmith.data import tokens
from tunesmith.errors import InvalidRecipe, InvalidRequest
from tunesmith.plan.choice import LEVELS, Recompute
from tunesmith.plan.gpus import GIB, GPUS
from tunesmith.plan.memory import Head, Phase, Step, needed, peak, training
from tunesmith.plan.shapes import Shape, of_folder
from tunesmith.plan.trained import trained
from tunesmith.recipes.run import Recipe
from tunesmith.serving.memory import free_bytes
from tunesmith.train import memory, packing, rng
from tunesmith.train.batches import micro_batches
from tunesmith.train.checkpoints import Checkpoint
from tunesmith.train.method import Batch, Method, Work
from tunesmith.train.peak import PeakBytes, held_by
from tunesmith.train.trainer import Exact

SHARE = 0.9
"""Of a CPU's free memory that a run takes: what lies beside tensors, and other processes, need the rest."""
NAMED_GPUS = 4
"""GPUs that a refusal names."""


@dataclass(frozen=True)
class Planned:
    """What the plan says of a run's largest forward pass; `dry` says what it was."""

    shape: Shape
    step: Step
    phases: list[Phase]
    room: int
    """Bytes of the device that the run may take, what it holds already included."""

    @property
    def bytes(self) -> int:
        return peak(self.phases).total

    def told(self) -> str:
        return f"{_words(self.step)}: {self.bytes / GIB:.2f} GiB planned of {self.room / GIB:.2f}"


@dataclass(frozen=True)
class Dry:
    """What a dry step took."""

    peak_bytes: int
    """Most live bytes of tensors, the optimizer's moments added, which do not exist yet."""
    seconds: float
    tokens: int


def room(device: str, model: torch.nn.Module, recipe: Recipe) -> int:
    """Bytes that the run may take on its device: what is free, with what the base holds; or `compute.memory_gib`."""
    if recipe.compute.memory_gib is not None:
        return int(recipe.compute.memory_gib * GIB)
    if device != "cpu":
        free, _ = torch.cuda.mem_get_info()
        return int(free) + torch.cuda.memory_reserved()
    held = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in held_by(model)}
    return int(SHARE * free_bytes()) + sum(held.values())


def ready(
    work: Work, method: Method, asked: Recipe, space: int, start: Checkpoint | None
) -> tuple[Work, Planned | None]:
    """`plan`, or for a run that goes on the cut of its checkpoint `start`."""
    if start is None:
        return plan(work, method, asked, space)
    work = _with(work, **start.state["cut"])
    shape = _shape(work)
    return work, None if shape is None else planned(work, method, shape, space, worst_steps(work))


def _shape(work: Work) -> Shape | None:
    """None for an architecture that the plan does not know."""
    try:
        return of_folder(work.base.folder, work.base.id)
    except InvalidRequest:
        return None


def plan(work: Work, method: Method, asked: Recipe, space: int) -> tuple[Work, Planned | None]:
    """`work` with every open number of its cut chosen, and the plan of its largest pass. `asked` is the recipe before anything
    was filled in.

    No plan for a base whose architecture the plan does not know: then nothing is chosen, and the dry step alone speaks. Raises
    InvalidRecipe with what would fit, where nothing that may be chosen does.
    """
    shape = _shape(work)
    if shape is None:
        return work, None
    steps = worst_steps(work)
    for candidate in _candidates(work, method, asked):
        found = planned(candidate, method, shape, space, steps)
        if _need(found.phases, work.device) <= space:
            return candidate, found
    raise _refused(work, found, space)


def _candidates(work: Work, method: Method, asked: Recipe) -> list[Work]:
    """What may be chosen, the fastest first: fewer rows a pass before layers compute again, for that costs half as much again."""
    compute, size = work.recipe.compute, len(work.steps[0])
    free_levels = compute.recompute is None and work.recipe.adapter.type != "prefix" and not compute.offload_activations
    levels: tuple[Recompute | None, ...] = LEVELS if free_levels else (compute.recompute,)
    if work.packs and method.pack is not None:
        first = compute.packing_length or (packing.CPU_TOKENS if work.device == "cpu" else packing.GPU_TOKENS)
        sizes = [first] if compute.packing_length else [first // factor for factor in (1, 2, 4, 8)]
        cuts = [{"packing_length": each} for each in sizes]
    else:
        rows = asked.method.micro_batch_size
        cuts = [{"micro_batch_size": each} for each in ([rows] if rows else _halves(size))]
    return [_with(work, recompute=level, **cut) for level in levels for cut in cuts]


def _halves(size: int) -> list[int]:
    found = [size]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found


def _with(
    work: Work, *, recompute: Recompute | None, packing_length: int | None = None, micro_batch_size: int | None = None
) -> Work:
    recipe = work.recipe
    compute = recipe.compute.model_copy(update={
        "recompute": recompute, "packing_length": packing_length or recipe.compute.packing_length,
    })
    method = recipe.method.model_copy(update={"micro_batch_size": micro_batch_size or recipe.method.micro_batch_size})
    return replace(work, recipe=recipe.model_copy(update={"compute": compute, "method": method}))


def cut(work: Work) -> dict[str, Any]:
    """For a checkpoint; `ready` takes it."""
    return {
        "micro_batch_size": work.recipe.method.micro_batch_size, "packing_length": work.recipe.compute.packing_length,
        "recompute": work.recipe.compute.recompute,
    }


def worst_steps(work: Work) -> list[list[int]]:
    """The steps with the longest row and with the most tokens: among their batches is the one that takes the most memory."""
    lengths = tokens.lengths(work.rows)
    return [max(work.steps, key=lambda step: max(lengths[row] for row in step)),
            max(work.steps, key=lambda step: sum(lengths[row] for row in step))]


def largest(work: Work, method: Method, steps: list[list[int]], pad_id: int = 0, shrink: int = 1) -> Batch:
    """The largest forward pass of `steps`."""
    return max((batch for step in steps for batch in micro_batches(step, work, method, pad_id, shrink)), key=num_tokens)


def num_tokens(batch: Batch) -> int:
    """Positions of a forward pass, padding included."""
    return int(batch["input_ids"].numel())


def planned(work: Work, method: Method, shape: Shape, space: int, steps: list[list[int]]) -> Planned:
    """The plan of the largest pass as `work` cuts it."""
    batches = [micro_batches(step, work, method, 0) for step in steps]
    batch = max((each for step in batches for each in step), key=num_tokens)
    what, virtual = trained(shape, work.recipe.adapter), work.recipe.adapter.num_virtual
    on_gpu, compute = work.device != "cpu", work.recipe.compute
    rows, length = batch["input_ids"].shape
    head: Head = "fused" if on_gpu and "sources" not in batch else "sliced"
    step = Step(
        tokens=rows * (length + virtual), length=length + virtual, scored=_scored(batch),
        regime=_regime(what.rank) if on_gpu else "fp32", quantization=work.recipe.quantization, trained=what.parameters,
        rank=what.rank, adapted=what.adapted, dropped=what.dropped, optimizer=compute.optimizer,
        recompute=compute.recompute or "none",
        head="columns" if virtual else head, offload=compute.offload_activations,
        accumulates=max(len(step) for step in batches) > 1,
    )
    return Planned(shape, step, training(shape, step), space)


def _scored(batch: Batch) -> int:
    if "targets" in batch:
        return len(batch["targets"])
    return int((batch["labels"] >= 0).sum()) if "labels" in batch else 0


def _regime(rank: int | None) -> Any:
    return "master" if rank is None else "amp"


def _need(phases: list[Phase], device: str) -> int:
    return needed(phases, on_gpu=device != "cpu")


def _words(step: Step) -> str:
    levels = {"none": "no layer recomputed", "all": "all layers recomputed"}
    return f"{step.tokens:,} tokens a pass, {levels.get(str(step.recompute), f'every {step.recompute}th layer recomputed')}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.0f} MiB"


def _refused(work: Work, least: Planned, space: int) -> InvalidRecipe:
    shape, need = least.shape, _need(least.phases, work.device)
    ways = {
        "quantization nf4": replace(least.step, quantization="nf4"),
        "a LoRA instead of all weights": replace(
            least.step, rank=16, adapted=len(shape.linears), trained=shape.lora(16),
            regime="amp" if work.device != "cpu" else "fp32",
        ),
        "compute.recompute all": replace(least.step, recompute="all"),
        "rows of half the tokens": replace(least.step, tokens=least.step.tokens // 2, scored=least.step.scored // 2),
    }
    needs = {name: _need(training(shape, step), work.device) for name, step in ways.items()}
    fits = [f"with {name} ({_size(each)})" for name, each in needs.items() if each <= space and each < need]
    on_gpu = training(shape, replace(least.step, regime=_regime(least.step.rank), head="fused"))
    gpus = [gpu.name for gpu in GPUS.values() if gpu.has_bf16 and needed(on_gpu) <= gpu.mib * 2**20]
    fits += [f"on {', '.join(gpus[:NAMED_GPUS])}"] if gpus else []
    return InvalidRecipe(
        f"The run does not fit: {_words(least.step)} needs {_size(need)}, and {_size(space)} are there.",
        hint=f"It fits {'; or '.join(fits)}." if fits else "Take a smaller base, or shorter rows.",
        param="base", code="does_not_fit",
    )


def dry_step(trainer: Exact, work: Work, method: Method, space: int) -> Dry:
    """One forward and backward pass on the largest batch; smaller ones while it does not fit. Leaves weights, gradients and
    random states as they were. Raises TrainingFailed where not even the smallest one fits."""
    states, steps = rng.capture(), worst_steps(work)
    enable_recompute(trainer)
    while True:
        batch = largest(work, method, steps, trainer.pad_id, trainer.shrink)
        is_least = (len(batch["documents"]) if "documents" in batch else len(batch["input_ids"])) == 1
        try:
            found = _measured(trainer, batch)
        except memory.ERRORS as error:
            if not memory.is_out_of_memory(error) or is_least:
                raise
            found = None
        trainer.model.zero_grad(set_to_none=True)
        rng.restore(states)
        if found is not None and (found.peak_bytes <= space or is_least):
            return found
        memory.free()
        trainer.shrink *= 2


def enable_recompute(trainer: Exact) -> None:
    """As the trainer does when training begins."""
    if not trainer.args.activation_checkpointing:
        return
    kwargs = dict(trainer.args.activation_checkpointing_kwargs or {})
    every, offload = kwargs.pop("every_n_layers", 1), kwargs.pop("offload", False)
    enable: Callable[..., None] = trainer.model.activation_checkpointing_enable
    enable(activation_checkpointing_kwargs=kwargs or None, every_n_layers=every, offload=offload)


def _measured(trainer: Exact, batch: Batch) -> Dry:
    trains = [each for each in trainer.model.parameters() if each.requires_grad]
    moments = sum(each.numel() * {"adamw_torch_fused": 8}.get(str(trainer.args.optim.value), 2) for each in trains)
    inputs = trainer._prepare_inputs(batch)
    began = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        _pass(trainer, inputs)
        torch.cuda.synchronize()
        most = int(torch.cuda.max_memory_allocated())
    else:
        with PeakBytes(held_by(trainer.model)) as watched:
            _pass(trainer, inputs)
        most = watched.peak
    return Dry(most + moments, time.perf_counter() - began, num_tokens(batch))


def _pass(trainer: Exact, inputs: Batch) -> None:
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=1)
    trainer.accelerator.backward(loss)
