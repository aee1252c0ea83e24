"""A method's loss and numbers on held-out rows, each row counted once. Trains nothing and draws no random number."""

from collections.abc import Sequence

import torch

from tunesmith.data import tokens
from tunesmith.data.examples import Example
from tunesmith.train.method import Method, Model, Work


@torch.no_grad()
def measure(
    method: Method, model: Model, rows: Sequence[Example], work: Work, *, batch_size: int, pad_id: int
) -> dict[str, float]:
    """`loss` (mean per term) and the method's numbers by name. The model is left in the mode that it was in."""
    was_training = model.training
    model.eval()
    loss, terms = 0.0, 0.0
    sums: dict[str, list[float]] = {}
    lengths = tokens.lengths(rows)
    ordered = sorted(range(len(rows)), key=lengths.__getitem__)
    for start in range(0, len(ordered), batch_size):
        batch = method.collate([rows[number] for number in ordered[start : start + batch_size]], pad_id)
        found = method.loss(model, {name: value.to(work.device) for name, value in batch.items()}, work)
        loss += found.total.item()
        terms += float(found.num_terms)
        for name, share in found.numbers.items():
            known = sums.setdefault(name, [0.0, 0.0])
            known[0] += float(share.total)
            known[1] += float(share.count)
    model.train(was_training)
    return {"loss": loss / max(1.0, terms)} | {name: total / max(1.0, count) for name, (total, count) in sums.items()}
