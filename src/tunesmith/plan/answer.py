"""One answer to one question: which GPUs fit, how long it takes, what it costs, and why every other GPU does not do.

Pure: a question and a list of prices in, an answer out. Whoever prints it or draws it stands above.
"""

from dataclasses import dataclass, field, replace
from datetime import date as Day
from typing import NamedTuple

from tunesmith.plan import hours, prices, spot
from tunesmith.plan.choice import choose, leanest, passes
from tunesmith.plan.gpus import GIB, GPUS, Gpu
from tunesmith.plan.memory import Phase, Quant, Step, needed, peak
from tunesmith.plan.prices import Price
from tunesmith.plan.shapes import Shape
from tunesmith.plan.spot import Interrupted
from tunesmith.plan.trained import Trained

COUNTS = (1, 2, 4, 8)
PACKED_TOKENS, CPU_TOKENS = 8192, 1024
"""Of a forward pass on a GPU and on a CPU, where there are as many (`train/packing.py`)."""
METHODS: dict[str, tuple[int, int]] = {"sft": (1, 0), "dpo": (2, 1), "kto": (1, 1), "orpo": (2, 0), "reward": (2, 0)}
"""Method -> answers of one row that are trained on, and forward passes of the base as reference."""


@dataclass(frozen=True)
class Question:
    """A training run, as it matters for a plan."""

    shape: Shape
    trained: Trained
    quantization: Quant
    method: str = "sft"
    longest: int = 2048
    """Tokens of the longest row."""
    mean: float = 2048
    """Of a row on average: packed rows cost no padding."""
    rows: int = 1000
    epochs: float = 3
    batch_size: int = 16
    optimizer: str = "adamw"
    counts: tuple[int, ...] = COUNTS

    @property
    def total_tokens(self) -> float:
        return self.rows * self.epochs * self.mean * METHODS[self.method][0]


class Offer(NamedTuple):
    """A machine of a provider for the whole run."""

    price: Price
    spot: bool
    gpus: int
    """Paid for."""
    usd_per_hour: float
    usd: float
    """Expected for the run, the typical interruptions included."""
    hours: float
    interrupted: tuple[Interrupted, ...]
    """The three scenarios; none on demand."""
    age: str
    """What is to be said of the price's age; empty if it is fresh."""


@dataclass(frozen=True)
class Option:
    """A number of GPUs of one kind that does it."""

    gpu: Gpu
    count: int
    sharded: bool
    """The model is spread over them; else each has its own."""
    step: Step
    phases: list[Phase]
    needed_bytes: int
    utilisation: float
    tokens_per_second: float
    hours: float
    offers: list[Offer]
    """The cheapest first; none where no price is known."""


@dataclass(frozen=True)
class Answer:
    """Everything that a plan says of a training run."""

    question: Question
    options: list[Option]
    """The cheapest first; those without a price last, those of few GPUs first."""
    rejected: dict[str, str]
    """GPU -> why it does not do."""
    unpriced: dict[str, str]
    """Provider -> why it has no price here."""
    notes: list[str] = field(default_factory=list)

    @property
    def cheapest(self) -> Option | None:
        return next((option for option in self.options if option.offers), None)

    @property
    def fastest(self) -> Option | None:
        return min(self.options, key=lambda option: option.hours, default=None)


def answer(question: Question, rows: list[Price], today: Day) -> Answer:
    """The whole answer. Nothing fits: `options` is empty, and `rejected` says what each GPU lacks."""
    options: list[Option] = []
    rejected: dict[str, str] = {}
    for gpu in GPUS.values():
        reason = _unfit(gpu)
        found = [] if reason else [option for count in question.counts if (option := _option(question, gpu, count, rows, today))]
        if found:
            options += found
        else:
            rejected[gpu.name] = reason or _too_small(question, gpu)
    options.sort(key=lambda option: (not option.offers, option.offers[0].usd if option.offers else option.count))
    named = {price.provider for price in rows}
    unpriced = {name: note or "no price is known here" for name, note in prices.PROVIDERS.items() if name not in named}
    return Answer(question, options, rejected, unpriced)


def _unfit(gpu: Gpu) -> str:
    return "" if gpu.has_bf16 else "has no bf16, in which training computes on a GPU"


def _too_small(question: Question, gpu: Gpu) -> str:
    count = max(question.counts)
    least = needed(leanest(question.shape, _step(question, count), tokens=passes(PACKED_TOKENS, question.longest)).phases)
    spread = f", even spread over {count}" if count > 1 else ""
    return f"needs {least / GIB:.1f} GiB{spread}, and has {gpu.gib:.1f}"


def _step(question: Question, sharded: int) -> Step:
    trained = question.trained
    return Step(
        tokens=PACKED_TOKENS, length=question.longest, scored=PACKED_TOKENS, trained=trained.parameters, rank=trained.rank,
        regime="master" if trained.rank is None else "amp", quantization=question.quantization, adapted=trained.adapted,
        dropped=trained.dropped,
        optimizer=question.optimizer, sharded=sharded, accumulates=True,
    )


def here(question: Question, *, on_gpu: bool) -> Step:
    """A step of the run on a machine of one's own, in fp32 on a CPU; as long a pass as a packed one may be there."""
    tokens = max(question.longest, PACKED_TOKENS if on_gpu else CPU_TOKENS)
    step = replace(_step(question, 1), tokens=tokens, scored=tokens)
    return step if on_gpu else replace(step, regime="fp32", head="sliced")


def best_offers(found: Answer) -> list[tuple[Option, Offer]]:
    """The cheapest offer of each kind of GPU on demand, and the cheapest spot one; the cheapest first."""
    best: dict[tuple[str, bool], tuple[Option, Offer]] = {}
    for option in found.options:
        for offer in option.offers:
            key = (option.gpu.name, offer.spot)
            if key not in best or offer.usd < best[key][1].usd:
                best[key] = (option, offer)
    return sorted(best.values(), key=lambda each: each[1].usd)


def _option(question: Question, gpu: Gpu, count: int, rows: list[Price], today: Day) -> Option | None:
    """None if it does not fit, or if there are more GPUs than rows of a step."""
    if count > question.batch_size:
        return None
    room = gpu.mib * 2**20
    share = round(question.batch_size * question.mean * METHODS[question.method][0] / count)
    wanted = max(question.longest, min(PACKED_TOKENS, share))
    for sharded in (1, count) if count > 1 else (1,):
        sizes = passes(wanted, question.longest)
        found = choose(question.shape, _step(question, sharded), lambda phases: needed(phases) <= room, tokens=sizes)
        if found is None:
            continue
        utilisation = hours.utilisation(gpu, quantization=question.quantization, gpus=count, sharded=sharded > 1)
        flops = hours.training_flops(
            question.shape, question.mean, trained=question.trained.parameters, all_weights=question.trained.rank is None,
            recompute=found.step.recompute, references=METHODS[question.method][1],
        )
        speed = hours.tokens_per_second(gpu, flops, share=utilisation, gpus=count)
        wall = question.total_tokens / speed / 3600
        return Option(
            gpu=gpu, count=count, sharded=sharded > 1, step=found.step, phases=found.phases, needed_bytes=needed(found.phases),
            utilisation=utilisation, tokens_per_second=speed, hours=wall, offers=_offers(rows, gpu, count, wall, today),
        )
    return None


def _offers(rows: list[Price], gpu: Gpu, count: int, wall: float, today: Day) -> list[Offer]:
    found = []
    for priced in prices.for_gpus(rows, gpu.name, count):
        for is_spot in (False, True):
            hourly = priced.usd_per_hour(spot=is_spot)
            if hourly is None:
                continue
            three = spot.scenarios(wall, spot.per_hour(priced.price.spot_band)) if is_spot else ()
            expected = next((each.hours for each in three if each.scenario == "typical"), wall)
            found.append(Offer(
                price=priced.price, spot=is_spot, gpus=priced.gpus, usd_per_hour=hourly, usd=hourly * expected, hours=expected,
                interrupted=three, age=priced.price.age(today),
            ))
    return sorted(found, key=lambda offer: offer.usd)


def as_json(found: Answer) -> dict[str, object]:
    """Plain numbers: bytes, parameters and tokens as integers, hours and dollars as floats."""
    question, shape = found.question, found.question.shape
    return {
        "model": shape.id,
        "parameters": shape.num_parameters,
        "trained_parameters": question.trained.parameters,
        "method": question.method,
        "quantization": question.quantization,
        "longest_row_tokens": question.longest,
        "trained_tokens": round(question.total_tokens),
        "options": [_option_json(option) for option in found.options],
        "rejected": found.rejected,
        "unpriced": found.unpriced,
        "notes": found.notes,
    }


def phase_json(phases: list[Phase]) -> list[dict[str, object]]:
    return [{"name": phase.name, "bytes": phase.total, "parts": phase.parts} for phase in phases]


def _option_json(option: Option) -> dict[str, object]:
    return {
        "gpu": option.gpu.name,
        "count": option.count,
        "sharded": option.sharded,
        "tokens_per_pass": option.step.tokens,
        "recompute": option.step.recompute,
        "peak_bytes": peak(option.phases).total,
        "needed_bytes": option.needed_bytes,
        "memory_bytes": option.gpu.mib * 2**20,
        "phases": phase_json(option.phases),
        "utilisation": option.utilisation,
        "tokens_per_second": option.tokens_per_second,
        "hours": option.hours,
        "offers": [_offer_json(offer) for offer in option.offers],
    }


def _offer_json(offer: Offer) -> dict[str, object]:
    price = offer.price
    return {
        "provider": price.provider, "instance": price.instance, "region": price.region, "spot": offer.spot, "gpus": offer.gpus,
        "usd_per_hour": offer.usd_per_hour, "usd": offer.usd, "hours": offer.hours,
        "interruptions": [each._asdict() for each in offer.interrupted],
        "source": price.source, "date": price.date.isoformat(), "age": offer.age, "note": price.note,
    }
