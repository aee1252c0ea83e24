"""Supervised fine-tuning of an adapter (LoRA, QLoRA) on a frozen base: data, training, held-out loss, adapter.

Knows a run folder and `Tools`; no database, no server. Exact: a run that was killed and resumed ends with the same bits.
"""

import hashlib
import json
import math
import os
import shutil
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tunesmith.data import dataset
from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.errors import TrainingFailed
from tunesmith.models.artifact import save_adapter
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.loader import load_base
from tunesmith.recipes.auto import resolve
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.train import checkpoints, order, rng
from tunesmith.train.checkpoints import Checkpoint
from tunesmith.train.loss import HeldOutLoss, measure
from tunesmith.train.speed import Speed, memory_bytes
from tunesmith.train.tools import Tools
from tunesmith.train.trainer import StepDone, StepTrainer, Work

NUM_CHECKPOINTS = 20
MIN_CHECKPOINT_STEPS = 5
MAX_EVALUATIONS = 10


def run(recipe: Recipe, folder: RunFolder, tools: Tools) -> dict[str, Any] | None:
    """Trains as `recipe` says, from the newest whole checkpoint if there is one. The result, or None if paused or cancelled.

    Raises InvalidData or NotFound for what the recipe names, StorageFull, TrainingFailed, and Fenced.
    """
    torch.set_num_threads(recipe.threads or len(os.sched_getaffinity(0)))
    tools.emit("phase", phase="data", message="Reading and encoding the rows")
    base = find_base(recipe.base, tools.models_dir)
    tokenizer = load_tokenizer(base.folder)
    data = dataset.build(
        recipe.data, folder.root, tokenizer, max_length=recipe.method.max_length or base.max_positions, seed=recipe.seed
    )
    recipe = resolve(recipe, hidden_size=base.hidden_size, num_rows=len(data.train), max_positions=base.max_positions)
    start = checkpoints.newest(folder.checkpoints, lambda message: tools.emit("warning", message=message))
    made_from = {"base_revision": base.revision, "rows": _digest(data.train)}
    if start is not None and start.state["made_from"] != made_from:
        raise TrainingFailed(
            "The base or the rows have changed since the checkpoint was written, so the run cannot go on.",
            hint="Put them back, or start a new run.",
        )

    tools.emit("phase", phase="loading", message=f"Loading {base.id} ({recipe.quantization})")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_base(base, recipe.quantization, dtype=torch.float32 if device == "cpu" else torch.bfloat16, device=device)
    num_fresh = data.rehearsal_per_epoch * math.ceil(recipe.method.epochs or 1)
    rows = data.train + dataset.rehearse(tokenizer, num_fresh, recipe.seed)
    steps = _plan(recipe, rows, data.rehearsal_per_epoch)
    work = Work(recipe, base, rows, len(data.train) + data.rehearsal_per_epoch, steps, str(folder.checkpoints), device)
    training = _Training(work, base, data.held_out, folder, tools, made_from, start)
    trainer = StepTrainer(model, tokenizer, work, start, training.at_step)
    training.trainer = trainer
    if not training.train():
        return None
    return _publish(training, data.report)


def _digest(rows: list[EncodedRow]) -> str:
    return hashlib.sha256(json.dumps([[row.ids, row.loss_mask] for row in rows]).encode()).hexdigest()


def _plan(recipe: Recipe, rows: list[EncodedRow], num_fresh: int) -> list[list[int]]:
    method = recipe.method
    lengths = [len(row.ids) for row in rows]
    epochs, batch_size = method.epochs or 1, method.batch_size or 1
    return order.plan(lengths, batch_size=batch_size, epochs=epochs, seed=recipe.seed, num_fresh=num_fresh)


@dataclass
class _Measured:
    """What a run has measured so far; it travels in checkpoints, so that a resumed run reports the whole."""

    tokens_seen: int
    losses: list[float]
    """Of the newest tenth of the steps."""
    before: HeldOutLoss | None
    after: HeldOutLoss | None

    @classmethod
    def of(cls, start: Checkpoint | None) -> "_Measured":
        if start is None:
            return cls(0, [], None, None)
        saved = start.state["measured"]
        before, after = (HeldOutLoss(*saved[name]) if saved[name] else None for name in ("before", "after"))
        return cls(saved["tokens_seen"], saved["losses"], before, after)


class _Training:
    """The steps of one attempt, and what happens at each step's end."""

    trainer: StepTrainer

    def __init__(
        self, work: Work, base: Base, held_out: list[EncodedRow], folder: RunFolder, tools: Tools, made_from: dict[str, str],
        start: Checkpoint | None,
    ):
        self.work, self.base, self.held_out, self.folder, self.tools = work, base, held_out, folder, tools
        self.made_from = made_from
        self.step = start.step if start else 0
        self.total = len(work.steps)
        self.measured = _Measured.of(start)
        self.stopped = False
        self._resumed = start is not None
        self._speed = Speed()
        self._checkpoint_every = work.recipe.checkpoints.every_steps or max(
            MIN_CHECKPOINT_STEPS, math.ceil(self.total / NUM_CHECKPOINTS)
        )
        self._evaluate_every = work.recipe.evaluation.every_steps or max(
            math.ceil(work.rows_per_epoch / len(work.steps[0])), math.ceil(self.total / MAX_EVALUATIONS)
        )
        ends = order.epoch_ends(work.rows_per_epoch, len(work.steps[0]), self.total)
        self._adapter_steps = order.thinned(ends, most=NUM_CHECKPOINTS, last=work.recipe.checkpoints.adapters)
        self._losses: deque[float] = deque(self.measured.losses, maxlen=max(1, self.total // 10))

    def train(self) -> bool:
        """True when all steps are done, False when it was paused or cancelled."""
        if self._resumed:
            self.tools.emit("resumed", step=self.step)
        elif self.held_out:
            self.tools.emit("phase", phase="evaluating", message="Loss on the held-out rows before training")
            self.measured.before = self._evaluate()
        self._obey()
        if not self.stopped and self.step < self.total:
            numbers = self.work.recipe.method.model_dump()
            self.tools.emit("phase", phase="training", message=f"Training, {self.total} steps", hyperparameters=numbers)
            self._speed.begin()
            self.trainer.train()
        return not self.stopped

    def at_step(self, done: StepDone) -> bool:
        """Called after each optimizer step; True stops the trainer."""
        if not math.isfinite(done.loss) or not math.isfinite(done.grad_norm):
            raise TrainingFailed(
                f"The loss is no number any more at step {done.step}.", hint="Lower method.learning_rate, then resume or retrain."
            )
        self.step = done.step
        wanted = self.tools.should_stop()
        self._report(done)
        if self.held_out and (done.step % self._evaluate_every == 0 or done.step == self.total):
            self.measured.after = self._evaluate()
        if wanted != "cancel" and done.step in self._adapter_steps:
            self._save_adapter()
        if wanted != "cancel" and (wanted or done.step % self._checkpoint_every == 0 or done.step == self.total):
            self._save()
        self._obey(wanted if done.step < self.total or wanted == "cancel" else None)
        return self.stopped

    def _obey(self, wanted: str | None = "ask") -> None:
        wanted = self.tools.should_stop() if wanted == "ask" else wanted
        if wanted is not None:
            self.stopped = True
            self.tools.emit("paused" if wanted == "pause" else "cancelled", step=self.step)

    def _report(self, done: StepDone) -> None:
        num_tokens = sum(len(self.work.rows[row].ids) for row in self.work.steps[done.step - 1])
        self.measured.tokens_seen += num_tokens
        self._losses.append(done.loss)
        self._speed.step(num_tokens)
        self.tools.emit(
            "step",
            total_steps=self.total,
            epoch=round(done.step * len(self.work.steps[0]) / self.work.rows_per_epoch, 4),
            tokens_seen=self.measured.tokens_seen,
            tokens_per_second=round(self._speed.tokens_per_second, 1),
            memory_bytes=memory_bytes(),
            eta_seconds=round(self._speed.seconds_per_step * (self.total - done.step), 1),
            **done._asdict(),
        )

    def _evaluate(self) -> HeldOutLoss:
        with self._speed.paused():
            found = measure(
                self.trainer.model,
                self.held_out,
                batch_size=self.trainer.args.per_device_train_batch_size,
                pad_id=self.trainer.pad_id,
                device=self.work.device,
                fused_head=self.work.fused_head,
            )
        self.tools.emit("eval", step=self.step, total_steps=self.total, rows=len(self.held_out), **found._asdict())
        return found

    def _save_adapter(self) -> None:
        """What was learned by an epoch's end, to be served. It comes before the checkpoint: who resumes there has it."""
        recipe, artifacts = self.work.recipe, self.folder.artifacts
        with self._speed.paused():
            info = save_adapter(self.trainer.model, artifacts / f"step-{self.step}", self.base, recipe)
            # One more than are served: whoever serves them has an epoch's time to let go of the oldest.
            old = [path for path in checkpoints.folders(artifacts) if (checkpoints.step_of(path) or 0) <= self.step]
            for path in old[: -recipe.checkpoints.adapters - 1]:
                shutil.rmtree(path, ignore_errors=True)
        path = f"{artifacts.name}/step-{self.step}"
        self.tools.emit("adapter", step=self.step, path=path, content_hash=info.content_hash)

    def _save(self) -> None:
        states = rng.capture()
        self.measured.losses = list(self._losses)
        with self._speed.paused():
            path = checkpoints.write(
                self.folder.checkpoints,
                Checkpoint(
                    self.step,
                    {**self.trainer.tensors(), "rng": states.tensors},
                    {"made_from": self.made_from, "rng": states.values, "measured": asdict(self.measured)},
                ),
                keep=self.work.recipe.checkpoints.keep,
            )
        self.tools.emit("checkpoint", step=self.step, path=str(path.relative_to(self.folder.root)))

    @property
    def train_loss(self) -> float:
        """Mean over the newest tenth of the steps."""
        return sum(self._losses) / max(1, len(self._losses))


def _publish(training: _Training, report: dict[str, Any]) -> dict[str, Any] | None:
    """Saves the adapter and says what it is. The lease is checked first: a fenced attempt publishes nothing."""
    training._obey()
    if training.stopped:
        return None
    base = training.base
    if base.revision != training.made_from["base_revision"]:
        raise TrainingFailed(f"The files of {base.id} were changed while it was trained on.", hint="Start a new run.")
    training.tools.emit("phase", phase="saving", message="Saving the adapter")
    recipe, measured = training.work.recipe, training.measured
    info = save_adapter(training.trainer.model, training.folder.artifacts / "adapter", base, recipe)
    metrics: dict[str, Any] = {"train_loss": training.train_loss}
    if measured.before is not None and measured.after is not None:
        metrics |= {
            "eval_loss_before": measured.before.loss,
            "eval_loss": measured.after.loss,
            "eval_token_accuracy_before": measured.before.token_accuracy,
            "eval_token_accuracy": measured.after.token_accuracy,
        }
    return {
        "metrics": metrics,
        "steps": training.total,
        "trained_tokens": measured.tokens_seen,
        "checkpoint": f"checkpoints/step-{training.total}",
        "adapter": asdict(info) | {"path": "artifacts/adapter"},
        "hyperparameters": recipe.method.model_dump(),
        "data": report,
    }
