"""`tunesmith verify ADAPTER`: is what is served what was trained? And what would another precision of the base change?"""

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def verify(
    adapter: str = typer.Argument(..., help="A run folder, the folder of an adapter or a model, or a fine-tuned model's id."),
    data: Path = typer.Option(None, help="Ask the rows of this file instead of made conversations."),
    count: int = typer.Option(32, min=1, max=1000, help="Conversations to ask."),
    on: str = typer.Option(None, help="Measure the drift on a base of this precision instead: none or nf4."),
    threads: int = typer.Option(0, help="CPU threads of the engine; 0 means all."),
    data_dir: Path = typer.Option(Path(".tunesmith"), help="Where pulled bases and fine-tuned models lie."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Prove that what is served is what was trained: the same tokens, the same log-probabilities."""
    if on not in (None, "none", "nf4"):
        raise typer.BadParameter("none or nf4", param_hint="--on")
    told = _told(adapter, data, count, on, threads, data_dir)
    print(json.dumps(told, indent=1)) if as_json else print(_sentence(told))


def _told(adapter: str, data: Path | None, count: int, on: str | None, threads: int, data_dir: Path) -> dict[str, Any]:
    from tunesmith.cli.local_model import find_target
    from tunesmith.errors import InvalidRequest
    from tunesmith.models.catalog import find_base
    from tunesmith.settings import Settings
    from tunesmith.train.verify import Asked, measure_drift, prove_folder

    warnings.filterwarnings("ignore", category=FutureWarning)  # peft's, of names that transformers will drop
    dirs = Settings(data_dir=data_dir.absolute()).dirs.make()
    target = find_target(adapter, data_dir)
    if target.adapter is None and not target.is_whole:
        raise InvalidRequest(f"{adapter} is a base, and nothing of it was trained here.", hint="Name an adapter or a run.")
    folder = target.adapter.path if target.adapter is not None else find_base(target.base, dirs.models).folder
    asked = Asked(folder, dirs.models, data, count, threads, dirs.logs / "verify.log")
    if on is None:
        return {"folder": str(folder)} | prove_folder(asked)
    return {"folder": str(folder), "on": on} | asdict(measure_drift(asked, "nf4" if on == "nf4" else "none"))


def _sentence(told: dict[str, Any]) -> str:
    if "on" in told:
        return (
            f"On {told['on']} the next token is {told['kl']:.4f} nats away in the mean (KL), and the loss is "
            f"{told['loss_there']:.4f} instead of {told['loss']:.4f}, over {told['conversations']} conversations."
        )
    return (
        f"What is served is what was trained: {told['prompts']} prompts rendered alike, {told['tokens']:,} tokens at most "
        f"{told['worst']:.1g} nats apart ({told['mean']:.1g} in the mean, {told['dtype']})."
    )
