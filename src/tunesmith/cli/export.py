"""`tunesmith export ADAPTER --to hf|merged|ollama`: what was trained, as a folder that other programs load."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesmith.errors import InvalidRequest
from tunesmith.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunesmith.models.catalog import Base

app = typer.Typer(add_completion=False, rich_markup_mode=None)
PROMPTS = (
    "What is the capital of France, and what is it known for?", "Repeat: apple stone river", "Sort these numbers: 9 2 5 1",
    "Write a short poem about the sea.", "My order has not come yet. Where is it?", "def add(a, b):\n    return a + b",
)
"""Questions that the merged model must answer for as base and adapter do."""


@app.command()
def export(
    adapter: str = typer.Argument(..., help="A run folder, an adapter's folder, or the id of a fine-tuned model."),
    to: str = typer.Option("merged", help="hf: the adapter by itself; merged: base and adapter in one; ollama: and a Modelfile."),
    out: Path = typer.Option(..., help="The folder to write; it must not be there."),
    dtype: str = typer.Option(None, help="Of merged weights: float32, bfloat16 or float16 [default: the base's]."),
    data_dir: Path = typer.Option(Path(".tunesmith"), help="Where pulled bases and fine-tuned models lie."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Write what was trained as a folder for transformers, PEFT, vLLM or Ollama."""
    if to not in ("hf", "merged", "ollama"):
        raise typer.BadParameter("hf, merged or ollama", param_hint="--to")
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise typer.BadParameter("float32, bfloat16 or float16", param_hint="--dtype")
    if out.exists():
        raise InvalidRequest(f"{out} is there already.", hint="Name a folder that is not.", param="out")
    told = _export(adapter, to, out, dtype, data_dir)
    print(json.dumps(told, indent=1)) if as_json else _show(told)


def _export(adapter: str, to: str, out: Path, dtype: str | None, data_dir: Path) -> dict[str, Any]:
    from tunesmith.cli.local_model import find_target
    from tunesmith.data.tokenizer import load_tokenizer
    from tunesmith.models.artifact import CONFIG
    from tunesmith.models.catalog import find_base
    from tunesmith.models.export import copy_adapter, merge
    from tunesmith.models.shelf import read_json
    from tunesmith.serving.vllm_adapters import problems
    from tunesmith.settings import Settings

    settings = Settings(data_dir=data_dir)
    target = find_target(adapter, data_dir)
    base = find_base(target.base, settings.dirs.models)
    tokenizer = load_tokenizer(base.folder)
    told: dict[str, Any] = {"folder": str(out.absolute()), "to": to, "base": base.id}
    modelfile = _modelfile(base, tokenizer, out.name) if to == "ollama" else None
    if target.is_whole:
        shutil.copytree(base.folder, out)
    elif target.adapter is None:
        raise InvalidRequest(f"{adapter} is a base, and nothing of it was trained here.", hint="Name an adapter or a run.")
    elif to == "hf":
        info = copy_adapter(target.adapter.path, out, base)
        told["vllm"] = problems(read_json(out / CONFIG), max_rank=512) + _precision(info.quantization)
    else:
        merged = merge(target.adapter.path, out, base, _prompts(tokenizer), dtype=dtype)
        told |= {"dtype": merged.dtype, "mean": merged.mean, "worst": merged.worst, "drift": merged.drift}
    if modelfile is not None:
        (out / "Modelfile").write_text(modelfile, encoding="utf-8")
        told["needs"] = _needs(out)
    return told


def _precision(quantization: str) -> list[str]:
    return [] if quantization == "none" else [f"it was trained on {quantization}, and its answers differ elsewhere"]


def _prompts(tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    from tunesmith.data.render import render

    texts = [render(tokenizer, [{"role": "user", "content": prompt}], [], generate=True) for prompt in PROMPTS]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def _modelfile(base: "Base", tokenizer: "PreTrainedTokenizerBase", name: str) -> str:
    """Before anything is merged: a template that cannot be told is no reason to have waited."""
    from tunesmith.data.render import render
    from tunesmith.models import ollama

    def rendered(messages: list[Message], generate: bool) -> str:
        return render(tokenizer, messages, [], generate=generate)

    text = ollama.template(rendered, tokenizer.bos_token or "")
    return ollama.modelfile(text, [str(tokenizer.eos_token)], name=name)


def _needs(folder: Path) -> list[str]:
    from tunesmith.models.ollama import IMPORTED
    from tunesmith.models.shelf import read_json

    (architecture, *_) = read_json(folder / "config.json").get("architectures") or [""]
    if architecture in IMPORTED:
        return []
    return [f"Ollama converts no {architecture}: make a GGUF of the folder with llama.cpp, and name that file after FROM."]


def _show(told: dict[str, Any]) -> None:
    print(f"Written to {told['folder']}")
    if "mean" in told:
        print(f"Its log-probabilities ({told['dtype']}) are {told['mean']:.1e} nats from those of base and adapter, "
              f"{told['worst']:.1e} at worst.")
    if told.get("drift") is not None:
        print(f"From the quantized base that it was trained on it is {told['drift']:.3f} nats apart.")
    if told["to"] == "hf" and "vllm" in told:
        print("\n".join(f"Not for vLLM: {reason}." for reason in told["vllm"]) or "PEFT and vLLM (--enable-lora) load it.")
    if told["to"] == "ollama":
        print(f"Next: ollama create {Path(told['folder']).name} -f {told['folder']}/Modelfile")
        print("\n".join(told["needs"]))
