"""What a method trains on: a row, a pair of rows of which one is preferred, or a row with a verdict. No torch, no files."""

from dataclasses import dataclass

from tunesmith.data.chat_template import EncodedRow


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt: both rows begin with the same tokens, of which none trains."""

    chosen: EncodedRow
    rejected: EncodedRow


@dataclass(frozen=True)
class Judged:
    """An answer that somebody found good or bad."""

    row: EncodedRow
    label: bool


Example = EncodedRow | Pair | Judged


def sides(example: Example) -> tuple[EncodedRow, ...]:
    """The rows of an example, a pair's preferred one first."""
    match example:
        case Pair(chosen, rejected):
            return (chosen, rejected)
        case Judged(row, _):
            return (row,)
        case _:
            return (example,)


def num_tokens(example: Example) -> int:
    """Tokens of all its rows."""
    return sum(len(row.ids) for row in sides(example))


def as_json(example: Example) -> list[object]:
    """What an example is, for a digest of it."""
    label = [example.label] if isinstance(example, Judged) else []
    return [[row.ids, row.loss_mask] for row in sides(example)] + label
