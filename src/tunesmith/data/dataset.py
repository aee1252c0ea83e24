"""Opens a run's files and splits them: encoded rows to train on, encoded rows held out, and a report of what was found.

Every row of the files is in the result or in the error; with `bad_rows: skip` it may be in the report instead, by its reason.
Rows that ask the same stay on one side of the split. Knows templates only through `chat_template`, and nothing of batches.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from transformers import PreTrainedTokenizerBase

from tunesmith.data import tokens
from tunesmith.data.chat_template import EncodedRow, encode, encode_pair
from tunesmith.data.examples import Example, Judged, Pair, sides
from tunesmith.data.formats import Problem, Row, RowFile, fingerprint, question, set_aside
from tunesmith.data.parallel import mapped
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
OVER_LONG = "over_long"
"""`Problem.check` of a row that has more tokens than the limit."""


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
    """A row that can be used: what it is trained as, and what is needed to split it from others and to count repeats."""

    line: int
    question: bytes
    content: bytes
    examples: Sequence[Example]


@dataclass
class Opened:
    """A whole file. `rows` and `problems` together are all its rows."""

    name: str
    unit: str
    format: str
    rows: list[Encoded] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unused: frozenset[str] = frozenset()
    """Placeholder values that no row asked for."""

    @property
    def num_rows(self) -> int:
        return len(self.rows) + len(self.problems)


def build(
    data: DataRecipe,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    seed: int,
    method: Method | None = None,
    cache: Path | None = None,
) -> Dataset:
    """The dataset of a recipe, paths taken from `folder`. `max_length` is in tokens; a longer row is an error, never cut.

    The same seed gives the same split. `method` says which formats can be used (by default sft's). Raises BadRows, or InvalidData
    for a file that cannot be read, has nothing to train on or holds what the method cannot use.

    With `cache`, a folder, the examples lie in a file there, made once for equal files and choices (see `tokens.py`), and not in
    memory; what is known of each row beside them is less than 1,300 bytes (by test).
    """
    method = method or SftMethod()
    paths = [folder / name for name in (data.train, data.validation) if name]
    if cache is None:
        return _made(paths, data, tokenizer, max_length, seed, method, tuple)
    choices = data.model_dump(mode="json", exclude={"train", "validation"})
    name = tokens.key(_there(paths), choices, max_length, seed, sorted(method.formats), _told(tokenizer))
    path = cache / f"{name}.safetensors"
    if (found := tokens.find(path)) is not None:
        file, told = found
        train, held_out = (tokens.Stored(file, numpy.array(told[side], "<i8")) for side in ("train", "held_out"))
        return Dataset(train, held_out, told["rehearsal_per_epoch"], told["report"])
    writer = tokens.Writer(path)
    try:
        made = _made(paths, data, tokenizer, max_length, seed, method, writer.add, writer.finish)
    finally:
        writer.close()
    sides = {"train": tokens.numbers(made.train), "held_out": tokens.numbers(made.held_out)}
    writer.tell({**sides, "rehearsal_per_epoch": made.rehearsal_per_epoch, "report": made.report})
    return made


def _there(paths: list[Path]) -> list[Path]:
    """The files, those of a folder one by one; one that is missing is left to whoever opens it."""
    found = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return [file for file in found if file.is_file()]


def _told(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What of a tokenizer decides the ids: its file, its template, and the code that reads both."""
    content = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    versions = [version(name) for name in ("transformers", "tokenizers", "jinja2")]
    return [hashlib.sha256(content.encode()).hexdigest(), str(tokenizer.chat_template), str(tokenizer.eos_token), *versions]


def _made(
    paths: list[Path], data: DataRecipe, tokenizer: PreTrainedTokenizerBase, max_length: int, seed: int, method: Method,
    keep: Callable[[Sequence[Example]], Sequence[Example]], finish: Callable[[], Any] = lambda: None,
) -> Dataset:
    """Reads, splits and reports. `keep` takes a row's examples when it is read; they are read again after `finish`."""
    files = [_opened(path, data, tokenizer, max_length, method, keep) for path in paths]
    refuse_unused(files)
    finish()
    train, held_out = split(files[0].rows, data.held_out if len(files) == 1 else 0.0, seed)
    if not train:
        raise InvalidData(f"{files[0].name} has no row left to train on.", hint="Hold out less, or add rows.")
    held_out = held_out if len(files) == 1 else files[1].rows
    examples = _examples(train)
    per_epoch = round(len(examples) * data.rehearsal / (1 - data.rehearsal))
    return Dataset(examples, _examples(held_out), per_epoch, _report(files, train, held_out, examples, per_epoch))


def _report(
    files: list[Opened], train: list[Encoded], held_out: list[Encoded], examples: Sequence[Example], per_epoch: int
) -> dict[str, Any]:
    """`rows` of the training file are `train`, `held_out` (if it has no file of its own) and those of `set_aside`."""
    problems = [problem for file in files for problem in file.problems]
    report = {
        "format": files[0].format,
        "rows": files[0].num_rows,
        "train": len(train),
        "held_out": len(held_out),
        "set_aside": set_aside(files[0].problems),
        "examples": len(examples),
        "split_rows": sum(len(item.examples) > 1 for item in train),
        "rehearsal_per_epoch": per_epoch,
        "skipped": [str(problem) for problem in problems],
        "truncated": 0,
        "over_long": sum(problem.check == OVER_LONG for problem in problems),
        "duplicates": len(duplicates(train)),
        "leaked": num_leaked(train, held_out),
        "tokens": lengths(examples),
    }
    if len(files) > 1:
        report["validation"] = {"rows": files[1].num_rows, "held_out": len(held_out), "set_aside": set_aside(files[1].problems)}
    return report


def _examples(rows: list[Encoded]) -> Sequence[Example]:
    return tokens.stored([item.examples for item in rows])


def _opened(
    path: Path, data: DataRecipe, tokenizer: PreTrainedTokenizerBase, max_length: int, method: Method,
    keep: Callable[[Sequence[Example]], Sequence[Example]],
) -> Opened:
    """A file of the run. Raises BadRows unless the recipe says that such rows are skipped and there are others."""
    skips = data.duplicates == "skip"
    opened = open_rows(RowFile(path, data), tokenizer, max_length, skip_duplicates=skips, method=method, keep=keep)
    refused = [problem for problem in opened.problems if problem.check != "duplicate"]
    if refused and (data.bad_rows == "refuse" or not opened.rows):
        raise BadRows(refused, opened.num_rows)
    return opened


def open_rows(
    source: RowFile,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    skip_duplicates: bool = False,
    method: Method | None = None,
    watch: Callable[[Iterable[Row | Problem]], Iterable[Row | Problem]] = iter,
    keep: Callable[[Sequence[Example]], Sequence[Example]] = tuple,
) -> Opened:
    """Every row of the file, encoded, or its problem; `watch` sees them pass, `keep` takes their examples.

    Many rows are encoded in several processes. Raises InvalidData for a format that the method, if given, cannot use.
    """
    opened = Opened(source.path.name, source.unit, source.format)
    seen: dict[bytes, int] = {}

    def encoded(item: Row | Problem) -> Encoded | Problem:
        return item if isinstance(item, Problem) else _encoded(item, source.path.name, source.unit, tokenizer, max_length)

    for found in mapped(encoded, _usable(source, method, watch)):
        if isinstance(found, Encoded) and skip_duplicates and (first := seen.setdefault(found.content, found.line)) != found.line:
            reason = f"It repeats {source.unit} {first}."
            found = Problem(source.path.name, found.line, reason, source.unit, "duplicate")
        if isinstance(found, Problem):
            opened.problems.append(found)
        else:
            opened.rows.append(found._replace(examples=keep(found.examples)))
    opened.format, opened.unused = source.format, frozenset(source.unused)
    return opened


def _usable(
    source: RowFile, method: Method | None, watch: Callable[[Iterable[Row | Problem]], Iterable[Row | Problem]]
) -> Iterator[Row | Problem]:
    for item in watch(source):
        if method is not None and source.format not in method.formats | {"auto"}:
            what = HOLDS.get(source.format, "answers to learn")
            raise InvalidData(
                f"{source.path.name} holds {what}, which the method {method.type} cannot use.",
                hint=f"It takes {', '.join(sorted(method.formats))}; docs/methods.md says which method is for which data.",
                param="training_file",
            )
        yield item


def _encoded(row: Row, file: str, unit: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded | Problem:
    """The row with its ids; one that the template refuses or that is over-long as its problem."""
    try:
        examples = to_examples(tokenizer, row)
    except InvalidData as error:
        return Problem(file, row.line, str(error), unit)
    longest = max(len(side.ids) for example in examples for side in sides(example))
    if longest > max_length:
        reason = f"It has {longest} tokens, more than the limit of {max_length}; shorten or split it."
        return Problem(file, row.line, reason, unit, OVER_LONG)
    return Encoded(row.line, question(row), fingerprint(row), examples)


def to_examples(tokenizer: PreTrainedTokenizerBase, row: Row) -> tuple[Example, ...]:
    """What a row is trained as: a pair, an answer with its label, or the row itself, in several where the template needs that."""
    if row.kind == "preference":
        return (Pair(*encode_pair(tokenizer, row)),)
    encoded = encode(tokenizer, row)
    return tuple(encoded) if row.label is None else (Judged(encoded[0], row.label),)


def refuse_unused(files: Sequence[Opened]) -> None:
    """Raises InvalidData for a placeholder's value that no row asked for: a name that is misspelt would go unseen."""
    unused = frozenset.intersection(*(file.unused for file in files))
    if unused:
        name = min(unused)
        raise InvalidData(f"No row holds {{{{{name}}}}}.", hint="Check the name, or leave it out.", param=f"data.values.{name}")


def split(rows: list[Encoded], share: float, seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """Rows to train on, and about `share` of them held out (at least one if share > 0 and there are two questions)."""
    wanted = round(len(rows) * share)
    if share <= 0:
        return rows, []
    sizes: dict[bytes, int] = {}
    for item in rows:
        sizes[item.question] = sizes.get(item.question, 0) + 1
    asked = sorted(sizes)
    random.Random(f"held_out/{seed}").shuffle(asked)
    kept_back: set[bytes] = set()
    num_held = 0
    for name in asked[:-1]:
        if num_held >= max(1, wanted):
            break
        kept_back.add(name)
        num_held += sizes[name]
    train = [item for item in rows if item.question not in kept_back]
    return train, [item for item in rows if item.question in kept_back]


def rehearse(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[EncodedRow]:
    """`count` rows of the built-in base's kept skills, in random order; `recall` gets RECALL_SHARE of them.

    A run sees each once: rows that come again every epoch are learned by heart and keep no skill (docs/results.md).
    """
    return list(_rehearsal(tokenizer, count, seed))


def _rehearsal(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> Iterator[EncodedRow]:
    others = [skill for skill in BANDS["kept"] if skill != "recall"]
    counts = {"recall": round(count * RECALL_SHARE)}
    rest = count - counts["recall"]
    counts |= {skill: rest // len(others) + (k < rest % len(others)) for k, skill in enumerate(others)}
    items = [item for skill, share in counts.items() for item in generate(skill, share, REHEARSAL_SEED + seed)]
    random.Random(f"rehearsal/{seed}").shuffle(items)
    for item in items:
        yield encode(tokenizer, Row(line=0, messages=[*item.messages, item.answer], tools=item.tools))[0]


def duplicates(rows: list[Encoded]) -> list[tuple[int, int]]:
    """(line, line of the first equal row) for each row that repeats an earlier one."""
    first: dict[bytes, int] = {}
    return [(row.line, known) for row in rows if (known := first.setdefault(row.content, row.line)) != row.line]


def num_leaked(train: list[Encoded], held_out: list[Encoded]) -> int:
    """Held-out rows whose question is trained on: their score says little."""
    asked = {item.question for item in train}
    return sum(item.question in asked for item in held_out)


def lengths(examples: Sequence[Example]) -> dict[str, int]:
    """Tokens: total, trained, and of a row min, median, p95 and max."""
    sizes, trained = tokens.sizes(examples)
    sizes.sort()
    at = {name: sizes[min(len(sizes) - 1, int(len(sizes) * share))] if sizes else 0
          for name, share in (("min", 0.0), ("median", 0.5), ("p95", 0.95), ("max", 1.0))}
    return {"total": sum(sizes), "trained": trained, **at}
