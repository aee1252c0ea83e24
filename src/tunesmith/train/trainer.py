"""TRL's trainers, made exact: order of rows, learning rate and moments are functions of the step and of a checkpoint.

TRL makes the adapter, the optimizer and the loop. `Exact` is laid over the trainer of a method and overrides which rows come
(`order.plan`), the loss (the method's function), the learning rate, and that nothing is ever saved by the trainer itself (its
files would be pickle). Knows no run folder: what happens at a step boundary is the caller's `at_step`.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer

from tunesmith.train import memory, processes, rng, schedule
from tunesmith.train.adapters import begin, peft_config
from tunesmith.train.batches import micro_batches
from tunesmith.train.checkpoints import Checkpoint, Tensors
from tunesmith.train.method import Batch, Method, Model, Work

OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}
"""A recipe's `compute.optimizer` -> the Trainer's name for it."""


class StepDone(NamedTuple):
    """One optimizer step, as it ended."""

    step: int
    """Counted from 1 over the whole run, resumes included."""
    loss: float
    learning_rate: float
    grad_norm: float
    numbers: dict[str, float]
    """The method's own, such as token_accuracy, by the name that they have in events."""


class Exact(Trainer):  # type: ignore[misc]
    """Trains the steps of `work` that come after `start`; `at_step` is called after each, and says whether to stop."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        work: Work,
        method: Method,
        start: Checkpoint | None,
        at_step: Callable[[StepDone], bool],
    ):
        self.pad_id = int(tokenizer.pad_token_id)
        super().__init__(
            model=model,
            args=method.arguments(common_arguments(work, start.step if start else 0), work),
            data_collator=lambda rows: rows,
            train_dataset=method.sample(work.rows[0]),
            processing_class=tokenizer,
            peft_config=peft_config(work.recipe, work.base),
        )
        begin(self.model, work.recipe, tokenizer)
        self._work, self._method = work, method
        self._start = start
        self._at_step = at_step
        self._first_step = start.step if start else 0
        self._rng = rng.RandomStates(start.tensors["rng"], start.state["rng"]) if start else None
        self._sums: dict[str, list[float]] = {}
        self._step_rows: list[int] = []
        self._num_counted = 0
        self.shrink: int = start.state["shrink"] if start else 1
        """Micro-batches are this many times smaller than was asked for, because memory ran out."""
        for name, parameter in self._trained():
            # TRL rounds a QLoRA's adapter to bfloat16; small updates would be lost in it.
            parameter.data = parameter.data.float()
            if start is not None:
                parameter.data.copy_(start.tensors["adapter"][name])
        self.model.train()

    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    # -- state of a checkpoint ----------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensors]:
        """The adapter and the moments, by parameter name."""
        moments: Tensors = {}
        for name, parameter in self._trained():
            moments |= {f"{name}|{kind}": _as_kept(kind, value) for kind, value in self.optimizer.state[parameter].items()}
        return {"adapter": {name: parameter.data for name, parameter in self._trained()}, "optimizer": moments}

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)
        if self._start is not None:
            moments = self._start.tensors["optimizer"]
            for name, parameter in self._trained():
                own = {key.split("|")[1]: value for key, value in moments.items() if key.split("|")[0] == name}
                optimizer.state[parameter] = {kind: _put_back(kind, value, parameter, optimizer) for kind, value in own.items()}
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        method, total, first = self._work.recipe.method, len(self._work.steps), self._first_step
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer,
            lambda step: schedule.factor(first + step, total, warmup_ratio=method.warmup_ratio, schedule=method.schedule),
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    # -- one step -----------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        """What the loader gives is a whole step: its rows' numbers. It reads ahead, so it makes no batches: they may shrink."""
        # Its own generator: the loader would otherwise draw from the global one, and a resumed run would differ.
        return DataLoader(
            self._work.steps[self._first_step :],  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=lambda step: step,
            generator=torch.Generator(),
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        self._step_rows = next(epoch_iterator)
        batches = self._micro_batches()
        mine, self._num_counted = processes.share(batches)
        return [mine], sum(self._method.num_terms(batch) for batch in batches)

    def _micro_batches(self) -> list[Batch]:
        return micro_batches(self._step_rows, self._work, self._method, self.pad_id, self.shrink)

    def training_step(self, model: Model, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """As the trainer's, without walking over all modules to tell them that this is training: a twentieth of a small step."""
        if self._rng is not None:
            rng.restore(self._rng)
            self._rng = None
        while True:
            try:
                return self._gradients(model, inputs, num_items_in_batch)
            except memory.ERRORS as error:
                can_shrink = len(inputs) < len(self._step_rows) and processes.world() == 1
                if not memory.is_out_of_memory(error) or not can_shrink:
                    raise
            # Here, where nothing holds what the failed pass had made.
            inputs = self._smaller(len(inputs))

    def _smaller(self, num_batches: int) -> list[Batch]:
        """The step's batches, twice as small and more; the step stays the same."""
        self.model.zero_grad()
        memory.free()
        batches: list[Batch] = []
        while len(batches) <= num_batches:
            self.shrink *= 2
            batches = self._micro_batches()
        return batches

    def _gradients(self, model: Model, inputs: list[Batch], num_items_in_batch: Any) -> torch.Tensor:
        self._sums = {}
        losses = []
        for number, batch in enumerate(inputs):
            batch = self._prepare_inputs(batch)
            is_last, counts = number == len(inputs) - 1, processes.world() == 1 or number < self._num_counted
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(model, batch, num_items_in_batch=num_items_in_batch if counts else math.inf)
                self.accelerator.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def compute_loss(self, model: Model, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """`num_items_in_batch`: terms of the whole step, over all processes; infinite for a batch that counts nothing."""
        found = self._method.loss(model, inputs, self._work)
        counts = not math.isinf(num_items_in_batch)
        for name, share in found.numbers.items():
            known = self._sums.setdefault(name, [0.0, 0.0])
            known[0] += float(share.total) * counts
            known[1] += float(share.count) * counts
        # The gradients of several processes are averaged, and the losses that are told too.
        return found.total * (processes.world() / num_items_in_batch)

    def floating_point_ops(self, inputs: Any) -> int:
        """Nobody reads it, and counting the parameters costs a millisecond a step."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Called by the trainer at the end of each step, when the optimizer has moved. Nothing is logged elsewhere."""
        if "grad_norm" not in logs:
            return
        step = self._first_step + self.state.global_step
        sums = processes.summed(self._sums)
        numbers = {name: total / max(1.0, count) for name, (total, count) in sums.items()}
        done = StepDone(step, logs["loss"], logs["learning_rate"], logs["grad_norm"], numbers)
        if processes.agreed(self._at_step(done)):
            self.control.should_training_stop = True


def _as_kept(kind: str, value: torch.Tensor | int) -> torch.Tensor:
    """One part of a parameter's moments as a checkpoint holds it. All parameters share the code books of 8-bit moments (`qmap1`,
    `qmap2`: 1 KiB), and safetensors wants each tensor to have memory of its own."""
    value = torch.as_tensor(value)
    return value.clone() if kind.startswith("qmap") else value


def _put_back(kind: str, value: torch.Tensor, parameter: torch.Tensor, optimizer: torch.optim.Optimizer) -> torch.Tensor | int:
    """One part of a parameter's moments, where and as its optimizer keeps it: bitsandbytes counts steps by a plain number."""
    if kind == "step" and not isinstance(optimizer, torch.optim.AdamW):
        return int(value)
    return value if value.ndim == 0 else value.to(parameter.device)


def common_arguments(work: Work, first_step: int) -> dict[str, Any]:
    """What every configuration of TRL's takes; each choice is said aloud, for TRL's defaults are bfloat16 and checkpointing."""
    method = work.recipe.method
    compute, size = work.recipe.compute, len(work.steps[0])
    recompute = compute.recompute or ("all" if compute.offload_activations else "none")
    on_gpu = work.device != "cpu"
    return dict(
        output_dir=work.scratch,
        max_steps=max(1, len(work.steps) - first_step),
        per_device_train_batch_size=min(method.micro_batch_size or size, size),
        gradient_accumulation_steps=1,
        learning_rate=(method.learning_rate or 0.0) * method.learning_rate_multiplier,
        weight_decay=method.weight_decay,
        adam_beta2=method.adam_beta2,
        max_grad_norm=method.max_grad_norm,
        optim=OPTIMIZERS[compute.optimizer],
        seed=work.recipe.seed,
        data_seed=work.recipe.seed,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        fp16=False,
        activation_checkpointing=recompute != "none",
        activation_checkpointing_kwargs={
            "every_n_layers": recompute if isinstance(recompute, int) else 1,
            "offload": compute.offload_activations,
            "use_reentrant": False,
        },
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        average_tokens_across_devices=False,
        ddp_backend=None if on_gpu or processes.world() == 1 else "gloo",
        ddp_timeout=processes.TIMEOUT_SECONDS,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
