"""What a GPU costs an hour, by provider: rows with source and date, shipped (`assets/prices.csv`) and laid over by a user's file.

A price that nobody told us is missing, never guessed. Knows no models and no memory.
"""

import csv
from dataclasses import dataclass
from datetime import date as Day
from pathlib import Path
from typing import NamedTuple

from tunesmith.errors import InvalidRequest
from tunesmith.plan.gpus import GPUS

SHIPPED = Path(__file__).parent / "assets" / "prices.csv"
COLUMNS = ("provider", "gpu", "gpus", "usd_per_gpu_hour", "spot_usd_per_gpu_hour", "spot_band", "instance", "region", "date",
           "date_of", "source", "note")
NEEDED = ("provider", "gpu", "usd_per_gpu_hour")
OLD_DAYS = 30

PROVIDERS: dict[str, str] = {
    "AWS": "",
    "SageMaker": "ml.* instances cost more than the same of EC2; no source of their prices is at hand",
    "Google Cloud": "",
    "Azure": "spot prices are not in the source at hand",
    "Lambda": "no spot",
    "RunPod": "",
    "Vast.ai": "a marketplace: prices change by the minute, spot is by bid",
    "Paperspace": "no spot",
    "Vultr": "",
    "DigitalOcean": "no spot",
    "Cloudera": "priced by contract, on instances of AWS, Azure or your own",
    "Colab": "sells compute units, not hours of a GPU",
}
"""Provider -> what there is to say of its prices. A provider without rows is listed all the same, as one whose price is
unknown."""


@dataclass(frozen=True)
class Price:
    """One machine that can be rented, per GPU and hour, in US dollars."""

    provider: str
    gpu: str
    gpus: int
    """GPUs of the machine; all of them are paid for."""
    usd: float
    spot_usd: float | None
    """None: there is no spot, or its price is unknown."""
    spot_band: int | None
    """AWS Spot Advisor's share of machines reclaimed in a month: 0 under 5 %, 1 to 10, 2 to 15, 3 to 20, 4 over 20 %."""
    instance: str
    region: str
    date: Day
    date_of: str
    """price: the day of the price. latest: the price is of that day or before. reading: the source has no date, and was read
    then."""
    source: str
    note: str

    def age(self, today: Day) -> str:
        """What is to be said of its age; empty for a price that is dated and at most 30 days old."""
        if self.date_of == "reading":
            return f"undated (read on {self.date})"
        days = (today - self.date).days
        return f"{days} days old" if days > OLD_DAYS else ""


class Priced(NamedTuple):
    """A GPU's price at one provider, for as many as are wanted."""

    price: Price
    gpus: int
    """Paid for: whole machines."""

    def usd_per_hour(self, *, spot: bool) -> float | None:
        each = self.price.spot_usd if spot else self.price.usd
        return None if each is None else each * self.gpus


def load(user_file: Path | None = None) -> list[Price]:
    """The shipped rows, without those that `user_file` has a row for (same provider, GPU and number of GPUs), and its rows.

    Raises InvalidRequest naming file, line and column.
    """
    own = _read(user_file, Day.today()) if user_file is not None else []
    replaced = {(row.provider.lower(), row.gpu, row.gpus) for row in own}
    shipped = [row for row in _read(SHIPPED, None) if (row.provider.lower(), row.gpu, row.gpus) not in replaced]
    return shipped + own


def for_gpus(prices: list[Price], gpu: str, count: int) -> list[Priced]:
    """The machines with `gpu`, as many as give at least `count`. One of one GPU is taken `count` times at the same price each."""
    found = []
    for price in prices:
        if price.gpu == gpu:
            machines = -(-count // price.gpus)
            found.append(Priced(price, machines * price.gpus))
    return found


def _read(path: Path, default_date: Day | None) -> list[Price]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = tuple(reader.fieldnames or ())
            strange = [name for name in columns if name not in COLUMNS] + [name for name in NEEDED if name not in columns]
            if strange:
                hint = f"Columns are {', '.join(COLUMNS)}; needed are {', '.join(NEEDED)}."
                raise InvalidRequest(f"{path}: column {strange[0]!r} is unknown or missing.", hint=hint, param="prices")
            return [_row(line, f"{path}:{number}", default_date) for number, line in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}.", hint="Name a CSV file of prices.", param="prices") from error


def _row(line: dict[str, str | None], where: str, default_date: Day | None) -> Price:
    def text(name: str) -> str:
        return (line.get(name) or "").strip()

    gpu = next((known for known in GPUS if known.lower() == text("gpu").lower()), None)
    if gpu is None:
        hint = f"There are {', '.join(GPUS)}."
        raise InvalidRequest(f"{where}: gpu {text('gpu')!r} is not in the table.", hint=hint, param="prices")
    try:
        # Catalogs write 0.00 for a spot price that they do not know.
        spot = float(text("spot_usd_per_gpu_hour") or 0) or None
        usd = float(text("usd_per_gpu_hour"))
        day = Day.fromisoformat(text("date")) if text("date") or default_date is None else default_date
        gpus, band = int(text("gpus") or 1), text("spot_band")
    except ValueError as error:
        raise InvalidRequest(f"{where}: {error}.", hint="Prices are numbers, dates like 2026-11-20.", param="prices") from error
    if not 0 < usd < 10_000 or gpus < 1 or (spot is not None and not 0 < spot < 10_000):
        hint = "Prices are US dollars, and GPUs at least one."
        raise InvalidRequest(f"{where}: a price or a number of GPUs is out of range.", hint=hint, param="prices")
    return Price(
        provider=text("provider"), gpu=gpu, gpus=gpus, usd=usd, spot_usd=spot, spot_band=int(band) if band else None,
        instance=text("instance"), region=text("region"), date=day, date_of=text("date_of") or "price",
        source=text("source") or str(where), note=text("note"),
    )
