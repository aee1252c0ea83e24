"""The micro-batches of a step: its rows in pieces that fit into memory, padded or packed. A function of the step alone."""

from tunesmith.train import order, packing
from tunesmith.train.method import Batch, Method, Work


def micro_batches(step: list[int], work: Work, method: Method, pad_id: int, shrink: int = 1) -> list[Batch]:
    """`step` has numbers of rows; every row is in one of the batches, which are `shrink` times smaller than was asked for."""
    most_rows = max(1, (work.recipe.method.micro_batch_size or len(step)) // shrink)
    most_rows = min(most_rows, -(-len(step) // work.recipe.compute.processes))
    if not work.packs or method.pack is None:
        pieces = order.micro_batches(step, most_rows)
        return [method.collate([work.rows[row] for row in piece], pad_id) for piece in pieces]
    examples = {row: work.rows[row] for row in step}
    lengths = [method.num_packed(examples[row]) for row in step]
    tokens = work.recipe.compute.packing_length or (packing.CPU_TOKENS if work.device == "cpu" else packing.GPU_TOKENS)
    pieces = packing.lines(step, lengths, tokens=max(1, tokens // shrink), most_rows=most_rows)
    return [method.pack([examples[row] for row in piece], pad_id) for piece in pieces]
