"""Opens a run's files and splits them: encoded rows to train on, encoded rows held out, and a report of what was found.

Every row of the files is in the result or in the error; with `bad_rows: skip` it may be in the report instead. Rows that ask
the same stay on one side of the split. Knows templates only through `chat_template.encode`, and nothing of batches.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from tunesmith.data.chat_template import EncodedRow, encode, encode_pair
from tunesmith.data.examples import Example, Judged, Pair, sides
from tunesmith.data.formats import Problem, ReadRows, Row, fingerprint, question, read_rows
from tunesmith.data.skills import BANDS, generate
from tunesmith.errors import InvalidData
from tunesmith.recipes.data import DataRecipe
from tunesmith.recipes.method import Method, SftMethod

SHOWN = 20
"""Problems that an error's message spells out; `BadRows.problems` has all."""

RECALL_SHARE = 0.25
"""Of the rehearsal rows: `recall` holds a hundred facts to be forgotten, each other skill one rule."""
REHEARSAL_SEED = 7_000_000
"""Added to the run's seed for rehearsal rows, so that they are neither the curriculum's nor the evaluation's."""

HOLDS = {
    "preference": "preference pairs", "kto": "answers labelled good or bad", "reinforcement": "questions without answers"
}
"""What rows of a format are; those of every other are answers to be learned."""


class BadRows(InvalidData):
    """Rows of a file cannot be used. `problems` has all of them, the message the first."""

    def __init__(self, problems: list[Problem], num_rows: int):
        shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        super().__init__(
            f"{len(problems)} of {num_rows} rows cannot be used:\n{shown}{more}\n",
            hint="Mend them, or set data.bad_rows to skip; `tunesmith data check FILE` shows them all.",
            param="training_file",
        )
        self.problems = problems


@dataclass(frozen=True)
class Dataset:
    """`report` is JSON-like, for result.json and people."""

    train: Sequence[Example]
    held_out: Sequence[Example]
    rehearsal_per_epoch: int
    """Rows of `rehearse` to add to each epoch."""
    report: dict[str, Any]


class Encoded(NamedTuple):
    """One row with its ids (two for a preference pair), or the reason why it has none."""

    row: Row
    sides: tuple[EncodedRow, ...]
    problem: Problem | None


def build(
    data: DataRecipe,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    seed: int,
    method: Method | None = None,
) -> Dataset:
    """The dataset of a recipe, paths taken from `folder`. `max_length` is in tokens; a longer row is an error, never cut.

    The same seed gives the same split. `method` says which formats can be used (by default sft's). Raises BadRows, or InvalidData
    for a file that cannot be read, has nothing to train on or holds what the method cannot use.
    """
    method = method or SftMethod()
    train, format, skipped = _open(folder / data.train, data, tokenizer, max_length, method)
    if data.validation is not None:
        held_out, _, skipped_too = _open(folder / data.validation, data, tokenizer, max_length, method)
        skipped += skipped_too
    else:
        train, held_out = split(train, data.held_out, seed)
    if not train:
        raise InvalidData(f"{Path(data.train).name} has no row left to train on.", hint="Hold out less, or add rows.")
    examples = [to_example(item) for item in train]
    per_epoch = round(len(train) * data.rehearsal / (1 - data.rehearsal))
    report = {
        "format": format,
        "rows": len(train) + (len(held_out) if data.validation is None else 0),
        "train": len(train),
        "held_out": len(held_out),
        "rehearsal_per_epoch": per_epoch,
        "skipped": [str(problem) for problem in skipped],
        "duplicates": len(duplicates([item.row for item in train])),
        "leaked": num_leaked(train, held_out),
        "tokens": lengths([row for example in examples for row in sides(example)]),
    }
    return Dataset(examples, [to_example(item) for item in held_out], per_epoch, report)


def to_example(item: Encoded) -> Example:
    """What a row is trained as: a pair, an answer with its label, or the row itself."""
    if item.row.kind == "preference":
        return Pair(*item.sides)
    return item.sides[0] if item.row.label is None else Judged(item.sides[0], item.row.label)


def _open(
    path: Path, data: DataRecipe, tokenizer: PreTrainedTokenizerBase, max_length: int, method: Method
) -> tuple[list[Encoded], str, list[Problem]]:
    """A file's encoded rows, its format, and the problems that were skipped because the recipe says so."""
    read = read_rows(path, data.format, data.map)
    if read.format not in method.formats and read.format != "auto":
        raise InvalidData(
            f"{path.name} holds {HOLDS.get(read.format, 'answers to learn')}, which the method {method.type} cannot use.",
            hint=f"It takes {', '.join(sorted(method.formats))}; docs/methods.md says which method is for which data.",
            param="training_file",
        )
    encoded = list(encode_rows(read, path.name, tokenizer, max_length))
    problems = sorted(read.problems + [item.problem for item in encoded if item.problem], key=lambda problem: problem.line)
    good = [item for item in encoded if item.problem is None]
    if problems and (data.bad_rows == "refuse" or not good):
        raise BadRows(problems, len(read.rows) + len(read.problems))
    return good, read.format, problems


def encode_rows(read: ReadRows, file: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Iterator[Encoded]:
    """Each row with its ids, in order; a row that the template refuses or that is over-long with its problem."""
    for row in read.rows:
        try:
            sides = encode_pair(tokenizer, row) if row.kind == "preference" else (encode(tokenizer, row),)
        except InvalidData as error:
            yield Encoded(row, (), Problem(file, row.line, str(error), read.unit))
            continue
        longest = max(len(side.ids) for side in sides)
        reason = f"It has {longest} tokens, more than the limit of {max_length}; shorten or split it."
        yield Encoded(row, sides, Problem(file, row.line, reason, read.unit) if longest > max_length else None)


def split(rows: list[Encoded], share: float, seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """Rows to train on, and about `share` of them held out (at least one if share > 0 and there are two questions)."""
    wanted = round(len(rows) * share)
    if share <= 0:
        return rows, []
    groups: dict[str, list[Encoded]] = {}
    for item in rows:
        groups.setdefault(question(item.row), []).append(item)
    asked = sorted(groups)
    random.Random(f"held_out/{seed}").shuffle(asked)
    kept_back: set[str] = set()
    num_held = 0
    for name in asked[:-1]:
        if num_held >= max(1, wanted):
            break
        kept_back.add(name)
        num_held += len(groups[name])
    train = [item for item in rows if question(item.row) not in kept_back]
    return train, [item for item in rows if question(item.row) in kept_back]


def rehearse(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[EncodedRow]:
    """`count` rows of the built-in base's kept skills, in random order; `recall` gets RECALL_SHARE of them.

    A run sees each once: rows that come again every epoch are learned by heart and keep no skill (docs/results.md).
    """
    others = [skill for skill in BANDS["kept"] if skill != "recall"]
    counts = {"recall": round(count * RECALL_SHARE)}
    rest = count - counts["recall"]
    counts |= {skill: rest // len(others) + (k < rest % len(others)) for k, skill in enumerate(others)}
    items = [item for skill, share in counts.items() for item in generate(skill, share, REHEARSAL_SEED + seed)]
    rows = [encode(tokenizer, Row(line=0, messages=[*item.messages, item.answer], tools=item.tools)) for item in items]
    random.Random(f"rehearsal/{seed}").shuffle(rows)
    return rows


def duplicates(rows: list[Row]) -> list[tuple[int, int]]:
    """(line, line of the first equal row) for each row that repeats an earlier one."""
    first: dict[bytes, int] = {}
    return [(row.line, known) for row in rows if (known := first.setdefault(fingerprint(row), row.line)) != row.line]


def num_leaked(train: list[Encoded], held_out: list[Encoded]) -> int:
    """Held-out rows whose question is trained on: their score says little."""
    asked = {question(item.row) for item in train}
    return sum(question(item.row) in asked for item in held_out)


def lengths(rows: list[EncodedRow]) -> dict[str, int]:
    """Tokens: total, trained, and of a row min, median, p95 and max."""
    sizes = sorted(len(row.ids) for row in rows)
    at = {name: sizes[min(len(sizes) - 1, int(len(sizes) * share))] if sizes else 0
          for name, share in (("min", 0.0), ("median", 0.5), ("p95", 0.95), ("max", 1.0))}
    return {"total": sum(sizes), "trained": sum(row.num_trained for row in rows), **at}
