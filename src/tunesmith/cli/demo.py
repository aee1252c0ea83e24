"""`tunesmith demo`: the whole circle once, on the built-in base and data, driven only by the official openai client.

What it starts is one `tunesmith serve`; all else is asked of that server's port. It knows nothing of engines or torch.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tunesmith.cli.local_server import LocalServer
from tunesmith.data.skills import BANDS, Item, generate
from tunesmith.errors import TrainingFailed
from tunesmith.evals.metrics import exact_match, same_message, token_f1
from tunesmith.paths import SUPPORT_DESK
from tunesmith.settings import DEFAULT_BASE

app = typer.Typer(add_completion=False, rich_markup_mode=None)
console = Console()

RECIPE: dict[str, Any] = {
    "quantization": "nf4",
    "adapter": {"rank": 64, "alpha": 64},
    "method": {"learning_rate": 4e-3, "adam_beta2": 0.95},
    "data": {"rehearsal": 0.4},
}
"""What OpenAI has no field for: QLoRA, its rank, and rehearsal of the base's skills. Figures: docs/results.md."""
EPOCHS, BATCH_SIZE = 18, 16
SKILL_ITEMS = 25
"""Questions per skill, asked before and after."""
SEED = 2026


@app.command()
def demo(
    data_dir: Path = typer.Option(Path(".tunesmith"), help="Folder that the server keeps everything in."),
    report: Path = typer.Option(None, help="Where to write the report [default: DATA_DIR/demo/report.json]."),
) -> None:
    """Fine-tune the built-in model on a support desk's answers, prove that it got better, serve it and chat with it."""
    began = time.monotonic()
    target = report or data_dir / "demo" / "report.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    with progress_bars() as bars, served(data_dir, bars) as client:
        found = circle(client, bars)
    found["seconds"] = round(time.monotonic() - began, 1)
    target.write_text(json.dumps(found, indent=1) + "\n")
    show(found, data_dir, target)


def circle(client: openai.OpenAI, bars: Progress) -> dict[str, Any]:
    """data -> fine-tune -> evaluate -> serve -> call; returns the report."""
    held_out = read_rows(SUPPORT_DESK / "heldout.jsonl")
    skills = [item for skill in BANDS["kept"] for item in generate(skill, SKILL_ITEMS, SEED)]
    before = measure(client, DEFAULT_BASE, held_out, skills, bars, "Ask the base model")
    job = fine_tune(client, bars)
    after = measure(client, job.fine_tuned_model, held_out, skills, bars, "Ask the tuned model")
    losses = job.held_out_losses
    say_hello(client, job.fine_tuned_model, held_out[0])
    return {
        "before": before.as_dict() | {"loss": losses[0] if losses else None},
        "after": after.as_dict() | {"loss": losses[-1] if losses else None},
        "skills_before": before.skills,
        "skills_after": after.skills,
        "skills": {name: [before.by_skill[name], after.by_skill[name]] for name in before.by_skill},
        "fine_tuned_model": job.fine_tuned_model,
        "job": job.id,
    }


# -- the server -------------------------------------------------------------------------------------------------------


@contextmanager
def served(data_dir: Path, bars: Progress) -> Iterator[openai.OpenAI]:
    """A client of a server of our own, which is gone afterwards."""
    bar = bars.add_task("Start the server", total=1)
    with LocalServer(data_dir) as server:
        cancel_leftovers(server.client)
        bars.update(bar, completed=1)
        yield server.client


def cancel_leftovers(client: openai.OpenAI) -> None:
    """A demo that was killed may have left a job that the server would go on with, beside ours."""
    for job in client.fine_tuning.jobs.list():
        if job.status in {"validating_files", "queued", "running", "paused"} and (job.metadata or {}).get("from") == "demo":
            client.fine_tuning.jobs.cancel(job.id)


# -- fine-tuning ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tuned:
    id: str
    fine_tuned_model: str
    held_out_losses: list[float]
    """Loss on the held-out rows, from before the first step to after the last."""


def fine_tune(client: openai.OpenAI, bars: Progress) -> Tuned:
    bar = bars.add_task("Fine-tune (QLoRA)", total=None)
    with open(SUPPORT_DESK / "train.jsonl", "rb") as train, open(SUPPORT_DESK / "heldout.jsonl", "rb") as held_out:
        training = client.files.create(file=train, purpose="fine-tune")
        validation = client.files.create(file=held_out, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=DEFAULT_BASE,
        training_file=training.id,
        validation_file=validation.id,
        suffix="support-desk",
        seed=SEED,
        metadata={"from": "demo"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": EPOCHS, "batch_size": BATCH_SIZE}},
        },
        extra_body={"recipe": RECIPE},
    )
    losses: dict[int, float] = {}
    seen: set[str] = set()
    while True:
        job = client.fine_tuning.jobs.retrieve(job.id)
        for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=100).data):
            if event.id not in seen:
                seen.add(event.id)
                follow(event, bars, bar, losses)
        if job.status == "succeeded" and job.fine_tuned_model:
            bars.update(bar, description="Fine-tune (QLoRA)")
            return Tuned(job.id, job.fine_tuned_model, [losses[step] for step in sorted(losses)])
        if job.status in {"failed", "cancelled"}:
            reason = job.error.message if job.error else job.status
            raise TrainingFailed(f"The job ended as {job.status}: {reason}", hint=f"See `tunesmith jobs logs {job.id}`.")
        time.sleep(0.5)


def follow(event: Any, bars: Progress, bar: Any, losses: dict[int, float]) -> None:
    data = event.data if isinstance(event.data, dict) else {}
    if data.get("valid_loss") is not None:
        losses[data["step"]] = data["valid_loss"]
    if data.get("train_loss") is not None:
        text = f"Fine-tune (QLoRA), loss {data['train_loss']:.2f}"
        bars.update(bar, total=data.get("total_steps"), completed=data["step"], description=text)


# -- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    exact_match: float
    token_f1: float
    by_skill: dict[str, float]

    @property
    def skills(self) -> float:
        return sum(self.by_skill.values()) / len(self.by_skill)

    def as_dict(self) -> dict[str, float]:
        return {"exact_match": self.exact_match, "token_f1": self.token_f1}


def read_rows(path: Path) -> list[Item]:
    rows = [json.loads(line)["messages"] for line in path.read_text().splitlines()]
    return [Item("support", messages[:-1], messages[-1], messages[-1]) for messages in rows]


def measure(
    client: openai.OpenAI, model: str, held_out: list[Item], skills: list[Item], bars: Progress, title: str
) -> Measured:
    bar = bars.add_task(title, total=len(held_out) + len(skills))
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda item: asked(client, model, item, lambda: bars.advance(bar)), held_out + skills))
    said = [(answer["content"] or "", item.answer["content"]) for item, answer in zip(held_out, answers, strict=False)]
    right: dict[str, list[float]] = {}
    for item, answer in zip(skills, answers[len(held_out) :], strict=True):
        right.setdefault(item.skill, []).append(same_message(answer, item.answer))
    return Measured(
        exact_match=sum(exact_match(*pair) for pair in said) / len(said),
        token_f1=sum(token_f1(*pair) for pair in said) / len(said),
        by_skill={skill: sum(scores) / len(scores) for skill, scores in right.items()},
    )


def asked(client: openai.OpenAI, model: str, item: Item, done: Callable[[], None]) -> dict[str, Any]:
    tools: dict[str, Any] = {"tools": item.tools} if item.tools else {}
    reply = client.chat.completions.create(
        model=model, messages=item.messages, temperature=0, max_tokens=64, **tools  # type: ignore[arg-type]
    )
    done()
    return reply.choices[0].message.model_dump()


def say_hello(client: openai.OpenAI, model: str, item: Item) -> None:
    question = item.messages[-1]["content"]
    console.print(f"\n[bold]you[/]   {question}\n[bold]model[/] ", end="")
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=64, stream=True
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            console.print(chunk.choices[0].delta.content, end="", markup=False, highlight=False)
    console.print("\n")


# -- showing ----------------------------------------------------------------------------------------------------------


def progress_bars() -> Progress:
    return Progress(TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)


def show(found: dict[str, Any], data_dir: Path, report: Path) -> None:
    table = Table(title="Held-out questions, and the base's own skills")
    for title in ("", "before", "after"):
        table.add_column(title, justify="left" if not title else "right")
    before, after = found["before"], found["after"]
    table.add_row("exact match", f"{before['exact_match']:.1%}", f"{after['exact_match']:.1%}")
    table.add_row("token F1", f"{before['token_f1']:.1%}", f"{after['token_f1']:.1%}")
    if before["loss"] is not None:
        table.add_row("loss", f"{before['loss']:.3f}", f"{after['loss']:.3f}")
    table.add_row("skills, mean", f"{found['skills_before']:.1%}", f"{found['skills_after']:.1%}", end_section=True)
    for name, (old, new) in found["skills"].items():
        table.add_row(f"  {name}", f"{old:.0%}", f"{new:.0%}", style="dim")
    console.print(table)
    model = found["fine_tuned_model"]
    console.print(
        f"Done in {found['seconds']:.0f} s. The report is {report}, all else lies in {data_dir}/.\n\n"
        f"Go on:\n"
        f"  tunesmith serve                          serve it (base_url http://127.0.0.1:8040/v1)\n"
        f"  tunesmith chat --model {model}\n"
        f"  tunesmith data check YOUR.jsonl          look at your own data\n"
        f"  tunesmith train examples/support_desk.toml   train without a server",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
