"""How an adapter's answers change on a base of another precision than it was trained on: its record, beside the adapter.

    drift.json   {"none": {"kl", "loss", "loss_there", "tokens", "conversations"}}, by the other precision

Written by `tunesmith verify --on`, read by whoever would serve it there. Imports no torch.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesmith.models.shelf import read_json
from tunesmith.store import write_atomically
from tunesmith.types import Quantization

RECORD = "drift.json"


@dataclass(frozen=True)
class Drift:
    """Measured over conversations; the first two over all of their tokens, losses over those that train."""

    kl: float
    """Mean Kullback-Leibler divergence of the next token, from the precision of the training to the other, in nats."""
    kl_worst: float
    loss: float
    """Mean negative log-likelihood on the precision of the training, in nats."""
    loss_there: float
    """The same on the other."""
    tokens: int
    conversations: int


def read_drift(folder: Path) -> dict[str, Drift]:
    """By the other precision; empty where none was measured."""
    return {name: Drift(**told) for name, told in read_json(folder / RECORD).items()} if (folder / RECORD).is_file() else {}


def write_drift(folder: Path, there: Quantization, drift: Drift) -> None:
    """Adds to the record. Raises StorageFull."""
    whole = {name: asdict(known) for name, known in (read_drift(folder) | {there: drift}).items()}
    write_atomically(folder / RECORD, json.dumps(whole, indent=1).encode())
