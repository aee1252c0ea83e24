"""Which GPUs serve a model: weights and caches against memory, and how fast tokens come. Knows no training."""

from dataclasses import dataclass
from datetime import date as Day

from tunesmith.plan import prices
from tunesmith.plan.gpus import GIB, GPUS, Gpu
from tunesmith.plan.hours import decode_tokens_per_second
from tunesmith.plan.memory import Phase, Quant, serving, weights
from tunesmith.plan.prices import Price
from tunesmith.plan.shapes import Shape

COUNTS = (1, 2, 4, 8)
SHARE = 0.9
"""Of a GPU's memory that an engine takes: vLLM's default. The rest is the CUDA context, graphs and activations."""


@dataclass(frozen=True)
class Serving:
    """A number of GPUs of one kind that serves a model."""

    gpu: Gpu
    count: int
    phases: list[Phase]
    room_bytes: int
    """What the engine may take, over all of them."""
    cache_tokens: int
    """Tokens of all sequences whose keys and values fit."""
    tokens_per_second: float
    """Of `sequences` together, when their caches are full."""
    usd_per_hour: float | None
    usd_per_million: float | None
    """Dollars of a million output tokens at that rate, on demand; None where no price is known."""
    price: Price | None
    age: str


def answer(
    shape: Shape, quantization: Quant, *, context: int, sequences: int, rows: list[Price], today: Day
) -> tuple[list[Serving], dict[str, str]]:
    """The smallest number of each kind of GPU that holds `sequences` of `context` tokens, the cheapest first; and why others do
    not."""
    held = serving(shape, quantization, tokens=context, sequences=sequences)
    options, rejected = [], {}
    for gpu in GPUS.values():
        count = next((each for each in COUNTS if SHARE * each * gpu.mib * 2**20 >= held[0].total), None)
        if count is None:
            most = max(COUNTS)
            rejected[gpu.name] = f"needs {held[0].total / GIB:.1f} GiB, and {most} have {most * gpu.gib * SHARE:.1f} to give"
            continue
        options.append(_option(shape, quantization, gpu, count, held, context, sequences, rows, today))
    options.sort(key=lambda option: (option.usd_per_hour is None, option.usd_per_hour or 0, option.count))
    return options, rejected


def _option(
    shape: Shape, quantization: Quant, gpu: Gpu, count: int, held: list[Phase], context: int, sequences: int, rows: list[Price],
    today: Day,
) -> Serving:
    room = int(SHARE * count * gpu.mib * 2**20)
    loaded = weights(shape, quantization, "bf16")
    speed = decode_tokens_per_second(gpu, loaded, shape.kv_bytes(context), sequences, count)
    offers = [priced for priced in prices.for_gpus(rows, gpu.name, count) if priced.usd_per_hour(spot=False)]
    best = min(offers, key=lambda priced: priced.usd_per_hour(spot=False) or 0, default=None)
    hourly = best.usd_per_hour(spot=False) if best else None
    return Serving(
        gpu=gpu, count=count, phases=held, room_bytes=room, cache_tokens=(room - loaded) // shape.kv_bytes(1),
        price=best and best.price,
        tokens_per_second=speed, usd_per_hour=hourly, usd_per_million=hourly / speed / 3600 * 1e6 if hourly else None,
        age=best.price.age(today) if best else "",
    )
