"""A run's data: every row is used, held out, or in the error; the same seed gives the same split and rehearsal."""

import json

import pytest

from tunesmith.data.dataset import BadRows, build, rehearse
from tunesmith.data.skills import BANDS, generate
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.errors import InvalidData
from tunesmith.paths import SUPPORT_DESK, TINY
from tunesmith.recipes.data import DataRecipe

TOKENIZER = load_tokenizer(TINY)


def write(folder, rows, name="train.jsonl"):
    (folder / name).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def rows(count, answer="yes"):
    return [{"question": f"question {n}", "answer": answer} for n in range(count)]


def opened(folder, *, max_length=4096, seed=1, **recipe):
    return build(DataRecipe(**{"train": "train.jsonl", **recipe}), folder, TOKENIZER, max_length=max_length, seed=seed)


def texts(encoded):
    return [TOKENIZER.decode(row.ids) for row in encoded]


def test_the_support_desk_is_320_rows_to_train_on_and_64_held_out():
    found = opened(SUPPORT_DESK, validation="heldout.jsonl")
    assert (len(found.train), len(found.held_out)) == (320, 64)
    assert found.report["format"] == "chat"
    assert (found.report["skipped"], found.report["duplicates"], found.report["leaked"]) == ([], 0, 0)
    tokens = found.report["tokens"]
    assert tokens["total"] == sum(len(row.ids) for row in found.train)
    assert tokens["trained"] == sum(sum(row.loss_mask) for row in found.train)
    assert tokens["min"] <= tokens["median"] <= tokens["p95"] <= tokens["max"] == max(len(row.ids) for row in found.train)


def test_a_share_is_held_out_the_same_for_the_same_seed(tmp_path):
    write(tmp_path, rows(50))
    first, again, other = (opened(tmp_path, held_out=0.1, seed=seed) for seed in (1, 1, 2))
    assert (len(first.train), len(first.held_out)) == (45, 5)
    assert first == again
    assert texts(first.held_out) != texts(other.held_out)
    assert sorted(texts(first.train + first.held_out)) == sorted(texts(opened(tmp_path).train))


def test_rows_that_ask_the_same_are_never_on_both_sides(tmp_path):
    write(tmp_path, [row for answer in ("yes", "no", "yes") for row in rows(20, answer)])
    found = opened(tmp_path, held_out=0.2)
    assert len(found.held_out) == 12
    assert found.report["leaked"] == 0
    assert found.report["duplicates"] == 16
    asked = [text.split("assistant")[0] for text in texts(found.held_out)]
    assert not {text.split("assistant")[0] for text in texts(found.train)} & set(asked)


def test_a_small_share_holds_out_at_least_one_row_and_never_all(tmp_path):
    write(tmp_path, rows(3))
    assert len(opened(tmp_path, held_out=0.01).held_out) == 1
    assert len(opened(tmp_path, held_out=0.99).train) == 1
    write(tmp_path, rows(1))
    assert len(opened(tmp_path, held_out=0.5).train) == 1


def test_held_out_rows_whose_question_is_trained_on_are_counted(tmp_path):
    write(tmp_path, rows(4))
    write(tmp_path, rows(6, "no"), "held.jsonl")
    assert opened(tmp_path, validation="held.jsonl").report["leaked"] == 4


def test_every_bad_row_is_told_with_file_line_and_reason(tmp_path):
    write(tmp_path, [*rows(2), {"question": "hi"}, {"question": "over<|im_end|>", "answer": "yes"}, "{oops"])
    with pytest.raises(BadRows) as caught:
        opened(tmp_path)
    assert caught.value.code == "invalid_training_file"
    assert [problem.line for problem in caught.value.problems] == [3, 4, 5]
    assert caught.value.message.startswith("3 of 5 rows cannot be used:\n  train.jsonl, line 3: There is no field answer.\n")
    assert "train.jsonl, line 4: Message 1 holds the control token <|im_end|>" in caught.value.message
    assert "train.jsonl, line 5: It is not JSON" in caught.value.message


def test_a_message_shows_the_first_twenty_and_the_error_has_all(tmp_path):
    write(tmp_path, ["{oops"] * 30)
    with pytest.raises(BadRows) as caught:
        opened(tmp_path)
    assert len(caught.value.problems) == 30
    assert "line 20:" in caught.value.message
    assert "line 21:" not in caught.value.message
    assert "and 10 more" in caught.value.message


def test_an_over_long_row_is_an_error_with_its_length_and_the_limit_never_cut(tmp_path):
    write(tmp_path, [*rows(1), {"question": "hi", "answer": "word " * 100}])
    longest = max(len(row.ids) for row in opened(tmp_path).train)
    assert max(len(row.ids) for row in opened(tmp_path, max_length=longest).train) == longest
    said = f"line 2: It has {longest} tokens, more than the limit of {longest - 1}; shorten or split it."
    with pytest.raises(BadRows, match=said):
        opened(tmp_path, max_length=longest - 1)


def test_bad_rows_are_left_out_only_when_the_recipe_says_so_and_are_listed(tmp_path):
    write(tmp_path, [*rows(2), {"question": "hi", "answer": ""}])
    found = opened(tmp_path, bad_rows="skip")
    assert len(found.train) == 2
    assert found.report["skipped"] == ["train.jsonl, line 3: The field answer is empty."]
    write(tmp_path, ["{oops"])
    with pytest.raises(BadRows):
        opened(tmp_path, bad_rows="skip")


def test_bad_rows_of_the_held_out_file_are_told_too(tmp_path):
    write(tmp_path, rows(2))
    write(tmp_path, ["{oops"], "held.jsonl")
    with pytest.raises(BadRows, match="held.jsonl, line 1"):
        opened(tmp_path, validation="held.jsonl")


@pytest.mark.parametrize(
    "row", [{"prompt": "hi", "chosen": "yes", "rejected": "no"}, {"prompt": "hi", "completion": "no", "label": False}]
)
def test_answers_that_are_bad_on_purpose_are_not_imitated(tmp_path, row):
    write(tmp_path, [row])
    with pytest.raises(InvalidData, match="which the method sft cannot use"):
        opened(tmp_path)


def test_columns_are_mapped_and_formats_named_by_the_recipe(tmp_path):
    write(tmp_path, [{"ask": "hi", "reply": "yes"}])
    found = opened(tmp_path, map={"question": "ask", "answer": "reply"}, format="question_answer")
    assert texts(found.train) == ["<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"]


def test_rehearsal_is_its_share_of_an_epoch_and_comes_from_every_kept_skill(tmp_path):
    write(tmp_path, rows(70))
    found = opened(tmp_path, rehearsal=0.3)
    assert len(found.train) == found.report["train"] == 70
    assert found.rehearsal_per_epoch == found.report["rehearsal_per_epoch"] == 30
    rehearsed = rehearse(TOKENIZER, 30, 1)
    assert len(rehearsed) == 30 >= len(BANDS["kept"])
    assert all(any(row.loss_mask) for row in rehearsed)
    assert rehearse(TOKENIZER, 30, 1) == rehearsed
    assert texts(rehearse(TOKENIZER, 30, 2)) != texts(rehearsed)


def test_rehearsal_rows_are_not_those_of_other_seeds():
    rehearsed = "\n".join(texts(rehearse(TOKENIZER, 90, 1)))
    asked = [item.messages[-1]["content"] for seed in range(5) for item in generate("fill_json", 100, seed)]
    assert sum(text in rehearsed for text in asked) <= 2