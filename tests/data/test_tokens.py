"""Encoded examples in a file: the same as in memory, made once for the same content, and never all in memory."""

import json
import subprocess
import sys
import tracemalloc

import pytest

from tunesmith.data import dataset, tokens
from tunesmith.data.chat_template import EncodedRow
from tunesmith.data.examples import Judged, Pair, num_tokens
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.models.catalog import find_base
from tunesmith.paths import SUPPORT_DESK
from tunesmith.recipes.data import DataRecipe
from tunesmith.recipes.method import DpoMethod


def row(length, seed=0):
    return EncodedRow([(seed + 7 * n) % 70_000 for n in range(length)], [n % 3 == 1 for n in range(length)])


EXAMPLES = [row(5), Pair(row(4, 1), row(9, 2)), Judged(row(3, 3), True), Judged(row(2, 4), False), row(70, 69_000)]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(find_base("tunesmith/tiny").folder)


def test_what_was_written_is_read_in_any_order(tmp_path):
    writer = tokens.Writer(tmp_path / "a.safetensors")
    parts = [writer.add(EXAMPLES[:2]), writer.add([]), writer.add(EXAMPLES[2:])]
    writer.finish()
    stored = tokens.stored(parts)
    assert list(stored) == EXAMPLES
    assert list(stored[::-1]) == EXAMPLES[::-1]
    assert stored[-1] == EXAMPLES[-1]
    assert tokens.lengths(stored) == [num_tokens(example) for example in EXAMPLES]
    assert tokens.sizes(stored) == tokens.sizes(EXAMPLES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_file_is_safetensors(tmp_path):
    from safetensors.numpy import load_file

    writer = tokens.Writer(tmp_path / "a.safetensors")
    writer.add(EXAMPLES)
    writer.finish()
    found = load_file(tmp_path / "a.safetensors")
    assert found["ids"].tolist() == [id for example in EXAMPLES for side in dataset.sides(example) for id in side.ids]
    assert found["kinds"].tolist() == [0, 1, 2, 3, 0]


def test_two_sequences_joined_are_one(tmp_path):
    writer = tokens.Writer(tmp_path / "a.safetensors")
    stored = writer.add(EXAMPLES)
    writer.finish()
    joined = tokens.Joined(stored, [row(11)])
    assert list(joined) == [*EXAMPLES, row(11)]
    assert joined[-1] == row(11)
    assert tokens.lengths(joined) == [num_tokens(example) for example in joined]


@pytest.mark.parametrize(
    ("data", "method"), [({"held_out": 0.2}, None), ({"format": "preference"}, DpoMethod())]
)
def test_a_dataset_in_a_file_is_the_one_in_memory_and_is_made_once(tmp_path, tokenizer, monkeypatch, data, method):
    lines = (SUPPORT_DESK / "train.jsonl").read_text().splitlines()[:40]
    if method is not None:
        lines = [json.dumps({"prompt": f"Say {n}.", "chosen": "yes " * (n % 5 + 1), "rejected": "no"}) for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    recipe = DataRecipe(train="rows.jsonl", **data)
    told = dict(max_length=2048, seed=3, method=method)
    in_memory = dataset.build(recipe, tmp_path, tokenizer, **told)
    made = dataset.build(recipe, tmp_path, tokenizer, **told, cache=tmp_path / "tokens")
    monkeypatch.setattr(dataset, "to_examples", None)  # whoever encoded again would fail
    found = dataset.build(recipe, tmp_path, tokenizer, **told, cache=tmp_path / "tokens")
    for other in (made, found):
        assert list(other.train) == list(in_memory.train)
        assert list(other.held_out) == list(in_memory.held_out)
        assert other.report == in_memory.report
        assert tokens.digest(other.train) == tokens.digest(made.train)
    assert sorted(path.suffix for path in (tmp_path / "tokens").iterdir()) == [".json", ".safetensors"]


def test_other_rows_choices_or_templates_are_another_file(tmp_path, tokenizer):
    path = tmp_path / "rows.jsonl"
    rows = (SUPPORT_DESK / "train.jsonl").read_text().splitlines(keepends=True)[:6]
    path.write_text("".join(rows))

    def build(**changes):
        recipe = DataRecipe(**{"train": "rows.jsonl"} | changes)
        dataset.build(recipe, tmp_path, tokenizer, max_length=2048, seed=0, cache=tmp_path / "tokens")
        return len(list((tmp_path / "tokens").glob("*.json")))

    assert build() == build() == 1
    assert build(held_out=0.5) == 2
    path.write_text("".join(rows[::-1]))
    assert build() == 3
    template = tokenizer.chat_template
    tokenizer.chat_template = template + "{# another #}"
    assert build() == 4
    tokenizer.chat_template = template


def test_a_file_that_was_not_finished_is_made_again(tmp_path, tokenizer):
    (tmp_path / "rows.jsonl").write_bytes((SUPPORT_DESK / "heldout.jsonl").read_bytes())
    build = lambda: dataset.build(  # noqa: E731
        DataRecipe(train="rows.jsonl"), tmp_path, tokenizer, max_length=2048, seed=0, cache=tmp_path / "tokens"
    )
    whole = list(build().train)
    (told,) = (tmp_path / "tokens").glob("*.json")
    told.unlink()
    told.with_suffix(".safetensors").write_bytes(b"torn")
    assert list(build().train) == whole


def test_rows_that_cannot_be_used_leave_no_parts_behind(tmp_path, tokenizer):
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(dataset.BadRows):
        dataset.build(DataRecipe(train="rows.jsonl"), tmp_path, tokenizer, max_length=64, seed=0, cache=tmp_path / "tokens")
    assert list((tmp_path / "tokens").iterdir()) == []


def test_writing_and_reading_hold_a_buffer_and_not_the_rows(tmp_path, monkeypatch):
    """1,000,000 tokens take 36 MB as lists; the writer holds its buffer, the reader one row."""
    monkeypatch.setattr(tokens, "BUFFERED", 10_000)
    writer = tokens.Writer(tmp_path / "a.safetensors")
    tracemalloc.start()
    for seed in range(2_000):
        writer.add([row(500, seed)])
    written = tracemalloc.get_traced_memory()[1]
    writer.finish()
    stored = tokens.Stored(writer, range(2_000))
    tracemalloc.reset_peak()
    assert sum(len(example.ids) for example in stored) == 1_000_000
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written < 1_500_000
    assert read < 1_500_000


GROWTH = """
import resource, sys
from pathlib import Path
from tunesmith.data import dataset
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.models.catalog import find_base
from tunesmith.recipes.data import DataRecipe
tokenizer = load_tokenizer(find_base("tunesmith/tiny").folder)
made = dataset.build(DataRecipe(train=sys.argv[1]), Path("/"), tokenizer, max_length=2048, seed=0, cache=Path(sys.argv[2]))
print(len(made.train), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_row_more_costs_less_than_what_a_million_may(tmp_path):
    """2 GB less 0.7 GB for the libraries leave 1,300 bytes for each of a million rows; as lists they would take 5 kB."""
    held = {}
    for count in (3_000, 9_000):
        path = tmp_path / f"{count}.jsonl"
        with open(path, "w") as file:
            for n in range(count):
                row = {"prompt": f"{n}: " + "all words of it " * 16, "completion": "and more of them " * 16}
                file.write(json.dumps(row) + "\n")
        out = subprocess.run(
            [sys.executable, "-c", GROWTH, str(path), str(tmp_path / "tokens")], capture_output=True, text=True, check=True,
            timeout=240,
        )
        num_rows, held[count] = map(int, out.stdout.split())
        assert num_rows == count
    assert (held[9_000] - held[3_000]) * 1024 / 6_000 < 1_300
