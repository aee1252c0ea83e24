"""What every training run does, whatever its method: rows in, plan of steps, training, result out.

Knows a run folder and `Tools`; no database, no server. Exact: a run that was killed and resumed ends with the same bits.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from tunesmith.data import dataset, report, tokens
from tunesmith.data.examples import Example
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.errors import InvalidRecipe, TrainingFailed
from tunesmith.models.catalog import find_base
from tunesmith.models.loader import load_base
from tunesmith.plan.gpus import GIB
from tunesmith.recipes.adapter import vllm_refuses
from tunesmith.recipes.auto import resolve
from tunesmith.recipes.compute import PROMPT_KINDS, refuse
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.train import checkpoints, fingerprint, order, packing, preflight, processes
from tunesmith.train.adapters import folder_name, save_trained
from tunesmith.train.attempt import Attempt
from tunesmith.train.forecast import Forecast, peak_flops
from tunesmith.train.forecast import costs as step_costs
from tunesmith.train.method import Method, Model, Work
from tunesmith.train.preflight import Planned
from tunesmith.train.speed import memory_bytes
from tunesmith.train.tools import Tools
from tunesmith.train.verify import prove_run


def train(recipe: Recipe, folder: RunFolder, tools: Tools, method: Method) -> dict[str, Any] | None:
    """Trains as `recipe` says, from the newest whole checkpoint if there is one. The result, or None if paused or cancelled.

    Raises InvalidData or NotFound for what the recipe names, StorageFull, TrainingFailed, and Fenced.
    """
    torch.set_num_threads(recipe.threads or len(os.sched_getaffinity(0)))
    tools.emit("phase", phase="data", message="Reading and encoding the rows")
    base = find_base(recipe.base, tools.models_dir)
    tokenizer = load_tokenizer(base.folder)
    max_positions = base.max_positions - recipe.adapter.num_virtual
    max_length = recipe.method.max_length or max_positions
    data = dataset.build(
        recipe.data, folder.root, tokenizer, max_length=max_length, seed=recipe.seed, method=recipe.method,
        cache=folder.root / "tokens",
    )
    for sentence in report.warnings(data.report):
        tools.emit("warning", message=sentence)
    asked = recipe
    recipe = resolve(recipe, hidden_size=base.hidden_size, num_rows=len(data.train), max_positions=max_positions)
    if (reason := vllm_refuses(recipe.adapter, recipe.quantization)) is not None:
        tools.emit("warning", message=f"What this run makes will not load in vLLM: {reason}. Our own engine serves it.")
    start = checkpoints.newest(folder.checkpoints, lambda message: tools.emit("warning", message=message))
    made_from = fingerprint.made_from(asked, base, tokenizer, tokens.digest(data.train))
    if start is not None:
        fingerprint.compare(made_from, start.state["made_from"], lambda message: tools.emit("warning", message=message))

    tools.emit("phase", phase="loading", message=f"Loading {base.id} ({recipe.quantization})")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    refuse(recipe.compute, adapter=recipe.adapter.type, num_gpus=torch.cuda.device_count())
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = load_base(base, recipe.quantization, dtype=dtype, device=device, head=method.head)
    num_fresh = data.rehearsal_per_epoch * math.ceil(recipe.method.epochs or 1)
    rows = tokens.Joined(data.train, dataset.rehearse(tokenizer, num_fresh, recipe.seed))
    steps = _plan(recipe, rows, data.rehearsal_per_epoch)
    work = Work(recipe, base, rows, len(data.train) + data.rehearsal_per_epoch, steps, str(folder.checkpoints), device)
    work = replace(work, packs=_packs(work, method, model, tools))
    if processes.rank():
        method.trainer(model, tokenizer, work, method, start, lambda done: False).train()
        return None
    space = preflight.room(device, model, recipe)
    work, planned = preflight.ready(work, method, asked, space, start)
    attempt = Attempt(work, method, data.held_out, folder, tools, made_from, start)
    with processes.started(work.recipe, folder.root, tools.models_dir):
        attempt.trainer = method.trainer(model, tokenizer, work, method, start, attempt.at_step)
        attempt.forecast = _foresee(attempt, planned, space)
        return _publish(attempt, data.report) if attempt.train() else None


def _foresee(attempt: Attempt, planned: Planned | None, space: int) -> Forecast:
    """One dry step, and what it and the plan let expect of the run."""
    work = attempt.work
    dry = preflight.dry_step(attempt.trainer, work, attempt.method, space)
    costs = step_costs(work.steps, tokens.lengths(work.rows), planned)
    forecast = Forecast(costs, planned, dry, peak_flops(), work.recipe.compute.usd_per_hour, first_step=attempt.step)
    told = forecast.before()
    message = f"One dry step of {dry.tokens:,} tokens held {dry.peak_bytes / GIB:.2f} GiB of {space / GIB:.2f}"
    attempt.tools.emit("plan", step=attempt.step, message=message, cut=preflight.cut(work), dry_bytes=dry.peak_bytes, **told)
    return forecast


def _packs(work: Work, method: Method, model: Model, tools: Tools) -> bool:
    """Do the rows of a step stand in lines without padding? Where they cannot, rows of like length share a batch."""
    wanted = work.recipe.compute.packing
    if wanted is False or work.recipe.adapter.type in PROMPT_KINDS:
        return False
    if method.pack is not None and packing.set_up(model):
        return True
    if method.pack is None and not wanted:
        return False
    reason = f"{work.base.id} with {work.recipe.method.type} cannot keep rows in one line apart"
    if wanted:
        raise InvalidRecipe(f"compute.packing: {reason}.", hint="Leave compute.packing out.", param="compute.packing")
    tools.emit("warning", message=f"Rows are padded and not packed: {reason}.")
    return False


def _plan(recipe: Recipe, rows: Sequence[Example], num_fresh: int) -> list[list[int]]:
    epochs, batch_size = recipe.method.epochs or 1, recipe.method.batch_size or 1
    return order.plan(tokens.lengths(rows), batch_size=batch_size, epochs=epochs, seed=recipe.seed, num_fresh=num_fresh)


def _publish(attempt: Attempt, report: dict[str, Any]) -> dict[str, Any] | None:
    """Saves the adapter and says what it is. The lease is checked first: a fenced attempt publishes nothing."""
    attempt.obey()
    if attempt.stopped:
        return None
    base, recipe = attempt.work.base, attempt.work.recipe
    if base.revision != attempt.made_from["base_revision"]:
        raise TrainingFailed(f"The files of {base.id} were changed while it was trained on.", hint="Start a new run.")
    plan = attempt.forecast.reconciled(tokens=attempt.measured.tokens_seen, process_bytes=memory_bytes())
    name = folder_name(recipe)
    attempt.tools.emit("phase", phase="saving", message=f"Saving the {name}")
    info = save_trained(attempt.trainer.model, attempt.folder.artifacts / name, base, recipe)
    proof = prove_run(attempt, info)
    return {
        "metrics": _metrics(attempt),
        "steps": attempt.total,
        "trained_tokens": attempt.measured.tokens_seen,
        "checkpoint": f"checkpoints/step-{attempt.total}",
        "adapter": asdict(info) | {"path": f"artifacts/{name}"},
        **({} if proof is None else {"proof": proof}),
        "hyperparameters": recipe.method.model_dump(),
        "data": report,
        "plan": plan,
    }


def _metrics(attempt: Attempt) -> dict[str, float]:
    """The training loss, and each number of the held-out rows before and after training."""
    found = {"train_loss": attempt.train_loss}
    for ending, numbers in (("_before", attempt.measured.before), ("", attempt.measured.after)):
        found |= {f"eval_{name}{ending}": value for name, value in (numbers or {}).items()}
    return found
