"""The steps of one attempt at a run, and what happens at each step's end: events, held-out loss, adapters, checkpoints, stopping.

Knows no method: it calls the functions of one. What it measures travels in checkpoints, so that a resumed run reports the whole.
"""

import math
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from tunesmith.data.examples import Example, num_tokens
from tunesmith.runfolder import RunFolder
from tunesmith.train import checkpoints, order, preflight, rng
from tunesmith.train.adapters import save_trained
from tunesmith.train.checkpoints import Checkpoint
from tunesmith.train.forecast import Forecast
from tunesmith.train.health import Health
from tunesmith.train.measure import measure
from tunesmith.train.method import Method, Work
from tunesmith.train.speed import Speed, memory_bytes
from tunesmith.train.tools import Tools
from tunesmith.train.trainer import Exact, StepDone
from tunesmith.train.watchdog import Watchdog
from tunesmith.types import Stop

NUM_CHECKPOINTS = 20
MIN_CHECKPOINT_STEPS = 5
MAX_EVALUATIONS = 10
ENDS: dict[str, str] = {"pause": "paused", "cancel": "cancelled", "interrupt": "interrupted"}
"""What a run was asked for -> the event with which it leaves."""


@dataclass
class Measured:
    """What a run has measured so far."""

    tokens_seen: int
    losses: list[float]
    """Of the newest tenth of the steps."""
    before: dict[str, float] | None
    """Loss and numbers of the held-out rows by name, before the first step."""
    after: dict[str, float] | None

    @classmethod
    def of(cls, start: Checkpoint | None) -> "Measured":
        return cls(0, [], None, None) if start is None else cls(**start.state["measured"])


class Attempt:
    """`train` trains the steps that are left; `at_step` is called by the trainer after each."""

    trainer: Exact
    forecast: Forecast

    def __init__(
        self, work: Work, method: Method, held_out: Sequence[Example], folder: RunFolder, tools: Tools, made_from: dict[str, str],
        start: Checkpoint | None,
    ):
        self.work, self.method, self.held_out, self.folder, self.tools = work, method, held_out, folder, tools
        self.made_from = made_from
        self.step = start.step if start else 0
        self.total = len(work.steps)
        self.measured = Measured.of(start)
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
        method = work.recipe.method
        self._health = Health((method.learning_rate or 0.0) * method.learning_rate_multiplier)
        self._shrink = 1
        if start is not None:
            self._health.restore(start.state["health"])
            self._shrink = start.state["shrink"]
        self._watchdog = Watchdog(self.step)

    def train(self) -> bool:
        """True when all steps are done, False when it was paused or cancelled."""
        for root in (self.folder.checkpoints, self.folder.artifacts):
            checkpoints.clear(root)
        if self._resumed:
            checkpoints.prune(self.folder.checkpoints, self.step, self.work.recipe.checkpoints.keep)
        if self._resumed:
            self.tools.emit("resumed", step=self.step)
        elif self.held_out:
            self.tools.emit("phase", phase="evaluating", message="Loss on the held-out rows before training")
            self.measured.before = self._evaluate()
        self.obey()
        if not self.stopped and self.step < self.total:
            numbers = self.work.recipe.method.model_dump()
            self.tools.emit("phase", phase="training", message=f"Training, {self.total} steps", hyperparameters=numbers)
            self._speed.begin()
            self.forecast.begin()
            with self._watchdog.watching():
                self.trainer.train()
        return not self.stopped

    def at_step(self, done: StepDone) -> bool:
        """Called after each optimizer step; True stops the trainer."""
        with self._watchdog.step_done():
            return self._boundary(done)

    def _boundary(self, done: StepDone) -> bool:
        self._health.check(done.step, done.loss, done.grad_norm)
        self.step = done.step
        if self.trainer.shrink != self._shrink:
            self._shrink = self.trainer.shrink
            smaller = f"micro-batches are {self._shrink} times smaller, the steps stay the same"
            self.tools.emit("warning", message=f"The memory ran out at step {done.step}: {smaller}.")
        wanted = self.tools.should_stop()
        if done.step == self.total and wanted != "cancel":
            wanted = None  # what is left takes no longer than leaving
        self._report(done)
        # Whose machine is taken away has half a minute: the measuring is left to nobody, the state is saved.
        if wanted != "interrupt" and self.held_out and (done.step % self._evaluate_every == 0 or done.step == self.total):
            self.measured.after = self._evaluate()
        if wanted != "cancel" and done.step in self._adapter_steps:
            self._save_adapter()
        if wanted != "cancel" and (wanted or done.step % self._checkpoint_every == 0 or done.step == self.total):
            self._save()
        self.obey(wanted)
        return self.stopped

    def obey(self, wanted: Stop | Literal["ask"] | None = "ask") -> None:
        wanted = self.tools.should_stop() if wanted == "ask" else wanted
        if wanted in ENDS:
            self.stopped = True
            self.tools.emit(ENDS[wanted], step=self.step)

    def _report(self, done: StepDone) -> None:
        seen = sum(num_tokens(self.work.rows[row]) for row in self.work.steps[done.step - 1])
        self.measured.tokens_seen += seen
        self._losses.append(done.loss)
        self._speed.step(seen)
        self._foretell()
        self.tools.emit(
            "step",
            step=done.step,
            total_steps=self.total,
            epoch=round(done.step * len(self.work.steps[0]) / self.work.rows_per_epoch, 4),
            loss=done.loss,
            learning_rate=done.learning_rate,
            grad_norm=done.grad_norm,
            tokens_seen=self.measured.tokens_seen,
            tokens_per_second=round(self._speed.tokens_per_second, 1),
            memory_bytes=memory_bytes(),
            eta_seconds=round(self._speed.seconds_per_step * (self.total - done.step), 1),
            **done.numbers,
        )

    def _foretell(self) -> None:
        """Once, after the first steps of an attempt: how long the rest takes."""
        rest = self.forecast.at_step(self._speed.newest_seconds, pauses_left=self._pauses_left())
        if rest is not None:
            message = f"By its first {len(self.forecast.seconds)} steps the rest takes {rest['rest_seconds'] / 60:.1f} minutes"
            self.tools.emit("plan", step=self.step, message=message, **rest)

    def _pauses_left(self) -> float:
        """Seconds of the evaluations and savings that are still to come, each by how long its kind took the last time."""
        left = range(self.step, self.total + 1)
        counts = {
            "evaluation": sum(step % self._evaluate_every == 0 or step == self.total for step in left) if self.held_out else 0,
            "checkpoint": sum(step % self._checkpoint_every == 0 or step == self.total for step in left),
            "adapter": sum(step in self._adapter_steps for step in left),
        }
        return sum(count * self._speed.pauses.get(kind, 0.0) for kind, count in counts.items())

    def _evaluate(self) -> dict[str, float]:
        with self._speed.paused("evaluation"):
            micro = max(1, self.trainer.args.per_device_train_batch_size // self._shrink)
            found = measure(
                self.method, self.trainer.model, self.held_out, self.work, batch_size=micro, pad_id=self.trainer.pad_id
            )
        self.tools.emit("eval", step=self.step, total_steps=self.total, rows=len(self.held_out), **found)
        return found

    def _save_adapter(self) -> None:
        """What was learned by an epoch's end, to be served. It comes before the checkpoint: who resumes there has it."""
        recipe, artifacts = self.work.recipe, self.folder.artifacts
        with self._speed.paused("adapter"):
            info = save_trained(self.trainer.model, artifacts / f"step-{self.step}", self.work.base, recipe)
            # One more than are served: whoever serves them has an epoch's time to let go of the oldest.
            old = [path for path in checkpoints.folders(artifacts) if (checkpoints.step_of(path) or 0) <= self.step]
            for path in old[: -recipe.checkpoints.adapters - 1]:
                shutil.rmtree(path, ignore_errors=True)
        path = f"{artifacts.name}/step-{self.step}"
        self.tools.emit("adapter", step=self.step, path=path, content_hash=info.content_hash)

    def _save(self) -> None:
        states = rng.capture()
        self.measured.losses = list(self._losses)
        with self._speed.paused("checkpoint"):
            path = checkpoints.write(
                self.folder.checkpoints,
                Checkpoint(
                    self.step,
                    {**self.trainer.tensors(), "rng": states.tensors},
                    {
                        "made_from": self.made_from,
                        "rng": states.values,
                        "measured": asdict(self.measured),
                        "health": self._health.state(),
                        "shrink": self._shrink,
                        "cut": preflight.cut(self.work),
                    },
                ),
                keep=self.work.recipe.checkpoints.keep,
            )
        self.tools.emit("checkpoint", step=self.step, path=str(path.relative_to(self.folder.root)))
        self.tools.copy(path)

    @property
    def train_loss(self) -> float:
        """Mean over the newest tenth of the steps."""
        return sum(self._losses) / max(1, len(self._losses))
