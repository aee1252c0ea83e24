"""A run says what it set aside, and why, before it trains; and every row of a file is in one of its counts."""

import json
from pathlib import Path

import pytest

from tunesmith.data.dataset import build
from tunesmith.data.report import warnings
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.paths import TINY
from tunesmith.recipes.data import DataRecipe
from tunesmith.recipes.method import DpoMethod, KtoMethod, SftMethod

TOKENIZER = load_tokenizer(TINY)
SHARED = Path(__file__).parents[3] / "shared" / "data"


def opened(folder, *, method=None, max_length=4096, **recipe):
    data = DataRecipe(**{"train": "rows.jsonl", "bad_rows": "skip", **recipe})
    return build(data, folder, TOKENIZER, max_length=max_length, seed=1, method=method).report


def write(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def is_whole(report) -> bool:
    return report["rows"] == report["train"] + report["held_out"] + sum(report["set_aside"].values())


def test_rows_read_are_rows_trained_held_out_and_set_aside_by_reason(tmp_path):
    good = [{"question": f"ask {n}", "answer": "yes"} for n in range(10)]
    empty = [{"question": name, "answer": ""} for name in "ab"]
    bad = [*empty, {"question": "c", "answer": "long " * 90}, {"question": "d"}]
    write(tmp_path, [*good, good[0], *bad])
    report = opened(tmp_path, held_out=0.2, max_length=60)
    assert is_whole(report)
    assert report["set_aside"] == {
        "The field answer is empty.": 2, "It has N tokens, more than the limit of N; shorten or split it.": 1,
        "There is no field answer.": 1,
    }
    assert (report["over_long"], report["truncated"], report["duplicates"]) == (1, 0, 1)
    assert [line.split(",")[1].split(":")[0] for line in report["skipped"]] == [" line 12", " line 13", " line 14", " line 15"]
    without = opened(tmp_path, held_out=0.2, max_length=60, duplicates="skip")
    assert is_whole(without)
    assert without["set_aside"]["It repeats line N."] == 1
    assert without["duplicates"] == 0


def test_held_out_rows_of_their_own_are_counted_apart(tmp_path):
    write(tmp_path, [{"question": "a", "answer": "yes"}, {"question": "b", "answer": ""}])
    write(tmp_path, [{"question": "A?", "answer": "no"}, {"question": "c", "answer": ""}], "held.jsonl")
    report = opened(tmp_path, validation="held.jsonl")
    assert report["rows"] == report["train"] + sum(report["set_aside"].values()) == 2
    assert report["validation"] == {"rows": 2, "held_out": 1, "set_aside": {"The field answer is empty.": 1}}
    assert report["leaked"] == 1  # the same question but for its case and its mark


def test_what_people_should_know_is_told_in_sentences(tmp_path):
    write(tmp_path, [{"question": "a", "answer": "yes"}, {"question": "b", "answer": "no"}])
    assert warnings(opened(tmp_path)) == []
    write(tmp_path, [{"question": "a", "answer": "yes"}] * 2 + [{"question": "b", "answer": ""}])
    write(tmp_path, [{"question": "a", "answer": "no"}], "held.jsonl")
    assert warnings(opened(tmp_path, validation="held.jsonl")) == [
        "Rows set aside, of 3: The field answer is empty. (1)",
        "Rows that repeat an earlier one: 1 (data.duplicates = skip sets them aside)",
        "Held-out rows that ask what is trained on, so that their loss says little: 1",
    ]


def test_the_held_out_rows_of_pairs_and_of_verdicts_ask_what_nobody_trains_on(tmp_path):
    pairs = [{"prompt": f"ask {n % 10}", "chosen": f"yes {n}", "rejected": "no"} for n in range(40)]
    write(tmp_path, pairs)
    report = opened(tmp_path, held_out=0.2, method=DpoMethod())
    assert (report["train"], report["held_out"], report["leaked"]) == (32, 8, 0)
    write(tmp_path, [{"prompt": f"ask {n % 10}", "completion": f"yes {n}", "label": n % 2 == 0} for n in range(40)])
    report = opened(tmp_path, held_out=0.2, method=KtoMethod())
    assert (report["train"], report["held_out"], report["leaked"]) == (32, 8, 0)


LONG = "It has N tokens, more than the limit of N; shorten or split it."


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data beside the checkout")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "recipe", "rows", "aside"),
    [
        ("alpaca_en_demo.json", SftMethod(), {"duplicates": "skip"}, 999, {"It repeats row N.": 14}),
        ("dpo_en_demo.json", DpoMethod(), {}, 300, {LONG: 5}),
        ("glaive_toolcall_en_demo.json", SftMethod(), {}, 300, {LONG: 1}),
        ("gsm8k_train_2000.jsonl", SftMethod(), {}, 2000, {}),
        ("identity.json", SftMethod(), {"values": {"name": "Ada", "author": "Acme"}}, 91, {}),
        ("kto_en_demo.json", KtoMethod(), {}, 300, {LONG: 6}),
        ("lamini_docs_train_1260.jsonl", SftMethod(), {}, 1260, {"The field answer is empty.": 1}),
    ],
)
def test_every_row_of_the_real_files_is_trained_held_out_or_set_aside_by_its_reason(name, method, recipe, rows, aside):
    report = opened(SHARED, train=name, held_out=0.1, method=method, **recipe)
    assert is_whole(report)
    assert (report["rows"], report["set_aside"], report["leaked"]) == (rows, aside, 0)
