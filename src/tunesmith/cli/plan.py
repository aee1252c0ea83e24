"""`tunesmith plan`: what fits, on which GPUs, how long, how much, before anything is rented or downloaded. Reaches no network."""

import json
from datetime import date as Day
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from tunesmith.errors import InvalidRequest, TunesmithError
from tunesmith.settings import DEFAULT_BASE

if TYPE_CHECKING:
    from tunesmith.plan.answer import Answer
    from tunesmith.plan.memory import Quant
    from tunesmith.plan.serve import Serving

app = typer.Typer(add_completion=False, rich_markup_mode=None)

ADAPTERS: dict[str, tuple[dict[str, Any], "Quant"]] = {
    "lora": ({"type": "lora"}, "none"),
    "qlora": ({"type": "lora"}, "nf4"),
    "int8": ({"type": "lora"}, "int8"),
    "dora": ({"type": "lora", "use_dora": True}, "none"),
    "prompt": ({"type": "prompt"}, "none"),
    "p_tuning": ({"type": "p_tuning"}, "none"),
    "prefix": ({"type": "prefix"}, "none"),
    "full": ({"type": "full"}, "none"),
}
"""What --method may be to train, besides a method's own name -> the recipe's adapter, and the base's precision."""
SERVED: dict[str, "Quant"] = {"16bit": "none", "int8": "int8", "nf4": "nf4"}
GIB = 1024**3


@app.command()
def plan(
    base: str = typer.Option(DEFAULT_BASE, help="A hub id such as Qwen/Qwen3-8B, its last part in any case, or a folder."),
    method: str = typer.Option("lora", help=f"What trains: {', '.join(ADAPTERS)}; or serve."),
    loss: str = typer.Option("sft", help="The method of training: sft, dpo, kto, orpo, reward."),
    tokens: int = typer.Option(2048, min=1, help="Tokens of the longest row; of a sequence, for serve."),
    mean_tokens: float = typer.Option(None, help="Tokens of a row on average [default: --tokens]."),
    rows: int = typer.Option(1000, min=1, help="Rows to train on."),
    epochs: float = typer.Option(3, help="Passes over them."),
    batch_size: int = typer.Option(16, min=1, help="Rows of an optimizer step."),
    rank: int = typer.Option(16, min=1, help="Rank of a LoRA."),
    optimizer: str = typer.Option("adamw", help="adamw, adamw_8bit or paged_adamw_8bit."),
    precision: str = typer.Option("16bit", help=f"Of the weights, for serve: {', '.join(SERVED)}."),
    sequences: int = typer.Option(1, min=1, help="Sequences at once, for serve."),
    gpu: str = typer.Option(None, help="This kind of GPU only, such as A100-80GB."),
    provider: str = typer.Option(None, help="This provider's prices only."),
    prices: Path = typer.Option(None, envvar="TUNESMITH_PRICES", help="A CSV file of your own prices; see docs/plan.md."),
    all_options: bool = typer.Option(False, "--all", help="Every number of GPUs and every offer, not the best of each GPU."),
    picture: Path = typer.Option(None, help="Draw memory by phase, and cost against hours, to this .svg or .png."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """What fits, on which GPUs, how long it takes and what it costs; and why every other GPU does not do."""
    from tunesmith.plan.prices import load
    from tunesmith.plan.shapes import find_shape

    shape = find_shape(base)
    known = [row for row in load(prices) if provider is None or row.provider.lower() == provider.lower()]
    if method == "serve":
        from tunesmith.plan import serve

        if picture is not None:
            raise InvalidRequest("--picture draws a training run.", hint="Leave it out with --method serve.", param="picture")
        quantization = _of(SERVED, precision, "precision")
        options, rejected = serve.answer(
            shape, quantization, context=tokens, sequences=sequences, rows=known, today=Day.today()
        )
        options = [each for each in options if gpu is None or each.gpu.name.lower() == gpu.lower()]
        _show_serving(shape.id, options, rejected, as_json=as_json)
        return
    found = _answer(
        shape, known, method=method, loss=loss, tokens=tokens, mean_tokens=mean_tokens, rows=rows, epochs=epochs,
        batch_size=batch_size, rank=rank, optimizer=optimizer, gpu=gpu,
    )
    if picture is not None:
        _draw(found, picture)
    if as_json:
        from tunesmith.plan.answer import as_json as to_json

        print(json.dumps(to_json(found), indent=1))
    else:
        _show(found, whole=all_options)


def _of(table: dict[str, Any], name: str, param: str) -> Any:
    if name not in table:
        raise InvalidRequest(f"{name!r} is no {param}.", hint=f"There are {', '.join(table)}.", param=param)
    return table[name]


def _answer(shape: Any, known: Any, *, method: str, loss: str, tokens: int, mean_tokens: float | None, rank: int, optimizer: str,
            gpu: str | None, **numbers: Any) -> "Answer":
    from dataclasses import replace

    from tunesmith.plan.answer import METHODS, Question, answer
    from tunesmith.plan.gpus import find_gpu
    from tunesmith.plan.memory import ADAM_BYTES
    from tunesmith.plan.trained import trained
    from tunesmith.recipes.adapter import ADAPTERS as KINDS

    fields, quantization = _of(ADAPTERS, method, "method")
    _of(METHODS, loss, "loss")
    _of(ADAM_BYTES, optimizer, "optimizer")
    if fields["type"] == "lora":
        fields = fields | {"rank": rank}
    adapter = KINDS[fields["type"]].model_validate(fields)
    question = Question(
        shape, trained(shape, adapter), quantization, method=loss, longest=tokens, mean=min(mean_tokens or tokens, tokens),
        optimizer=optimizer, **numbers,
    )
    found = answer(question, known, Day.today())
    if gpu is not None:
        name = find_gpu(gpu).name
        rejected = {each: reason for each, reason in found.rejected.items() if each == name}
        found = replace(found, options=[each for each in found.options if each.gpu.name == name], rejected=rejected)
    return found


def _draw(found: "Answer", path: Path) -> None:
    from tunesmith.plan.picture import draw, to_png, to_svg

    if path.suffix == ".svg":
        path.write_text(to_svg(draw(found)), encoding="utf-8")
    elif path.suffix == ".png":
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            hint = "Install the extra: pip install 'tunesmith[picture]'; or draw an .svg, which needs nothing."
            raise TunesmithError("A .png needs Pillow, which is not installed.", hint=hint) from error
        path.write_bytes(to_png(draw(found), SimpleNamespace(Image=Image, ImageDraw=ImageDraw, ImageFont=ImageFont)))
    else:
        raise InvalidRequest(f"{path} is neither .svg nor .png.", hint="Name one of the two.", param="picture")


def _show(found: "Answer", *, whole: bool) -> None:
    from tunesmith.plan.memory import peak

    console, question = Console(), found.question
    shape, parts = question.shape, question.trained.parameters
    console.print(
        f"[bold]{shape.id}[/]: {shape.num_parameters:,} parameters, of which {parts:,} train; {question.method}, base in "
        f"{question.quantization}, {question.total_tokens:,.0f} tokens in rows of up to {question.longest:,}", highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("GPU", "peak/GiB", "pass", "recompute", "tokens/s", "hours", "USD", "where"):
        if whole or column != "pass":
            table.add_column(column, justify="left" if column in ("GPU", "where") else "right", no_wrap=not whole)
    seen: set[str] = set()
    old: dict[str, str] = {}
    for option in found.options:
        if not whole and option.gpu.name in seen:
            continue
        seen.add(option.gpu.name)
        how = f"{option.count} x {option.gpu.name}" + (" (spread)" if option.sharded else "")
        base = [how, f"{peak(option.phases).total / GIB:.1f}/{option.gpu.gib:.1f}", f"{option.step.tokens:,}",
                str(option.step.recompute), f"{option.tokens_per_second:,.0f}"]
        if not whole:
            del base[2]
        offers = option.offers if whole else _two(option.offers)
        for number, offer in enumerate(offers):
            if offer.age:
                old[offer.price.provider] = offer.age
            shown = base if not number else [""] * len(base)
            table.add_row(*shown, f"{offer.hours:.2f}", f"{offer.usd:,.2f}", _where(offer, whole))
        if not offers:
            table.add_row(*base, f"{option.hours:.2f}", "-", "no price is known")
    console.print(table)
    if old:
        console.print("* price " + "; ".join(f"{provider}: {age}" for provider, age in sorted(old.items())), highlight=False)
    for name, reason in found.rejected.items():
        console.print(f"[dim]{name}: {reason}[/]", highlight=False)
    for name, reason in found.unpriced.items():
        console.print(f"[dim]{name}: no price, {reason}[/]", highlight=False)


def _where(offer: Any, whole: bool) -> str:
    """Who rents it; with `whole` also which machine, and how often spot is expected to take it away."""
    told = offer.price.provider + (" spot" if offer.spot else "") + ("*" if offer.age else "")
    if not whole:
        return str(told)
    lost = f", {offer.interrupted[1].interruptions:.2g} interruptions expected" if offer.spot else ""
    return f"{told}, {offer.price.instance}{lost}"


def _two(offers: list[Any]) -> list[Any]:
    """The cheapest on demand and the cheapest spot."""
    first = {offer.spot: offer for offer in reversed(offers)}
    return sorted(first.values(), key=lambda offer: float(offer.usd))


def _show_serving(name: str, options: list["Serving"], rejected: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        from tunesmith.plan.answer import phase_json

        found = [
            {"gpu": each.gpu.name, "count": each.count, "phases": phase_json(each.phases), "room_bytes": each.room_bytes,
             "cache_tokens": each.cache_tokens, "tokens_per_second": each.tokens_per_second, "usd_per_hour": each.usd_per_hour,
             "usd_per_million_tokens": each.usd_per_million, "provider": each.price.provider if each.price else None,
             "source": each.price.source if each.price else None, "age": each.age}
            for each in options
        ]
        print(json.dumps({"model": name, "options": found, "rejected": rejected}, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("GPU", "GiB", "to give", "cache tokens", "tokens/s", "USD/h", "USD per million", "where"):
        table.add_column(column, justify="left" if column in ("GPU", "where") else "right")
    for each in options:
        cost = ("-", "-", "no price is known")
        if each.price is not None:
            where = f"{each.price.provider} {each.price.instance}" + (f"; price {each.age}" if each.age else "")
            cost = (f"{each.usd_per_hour:.2f}", f"{each.usd_per_million:.2f}", where)
        table.add_row(f"{each.count} x {each.gpu.name}", f"{each.phases[0].total / GIB:.1f}", f"{each.room_bytes / GIB:.1f}",
                      f"{each.cache_tokens:,}", f"{each.tokens_per_second:,.0f}", *cost)
    console = Console()
    console.print(table)
    for gpu, reason in rejected.items():
        console.print(f"[dim]{gpu}: {reason}[/]", highlight=False)
