"""The micro-batches of a step: its rows in pieces that fit into memory, padded or packed. A function of the step alone."""

from tunesmith.train import order, packing
from tunesmith.train.method import Batch, Method, Work


def micro_batches(step: list[int], work: Work, method: Method, pad_id: int) -> list[Batch]:
    """`step` has numbers of rows; every row is in one of the batches."""
    most_rows = work.recipe.method.micro_batch_size or len(step)
    if not work.packs or method.pack is None:
        pieces = order.micro_batches(step, most_rows)
        return [method.collate([work.rows[row] for row in piece], pad_id) for piece in pieces]
    examples = {row: work.rows[row] for row in step}
    lengths = [method.num_packed(examples[row]) for row in step]
    tokens = work.recipe.compute.packing_length or (packing.CPU_TOKENS if work.device == "cpu" else packing.GPU_TOKENS)
    pieces = packing.lines(step, lengths, tokens=tokens, most_rows=most_rows)
    return [method.pack([examples[row] for row in piece], pad_id) for piece in pieces]
