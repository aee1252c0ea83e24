"""What is wrong with a training file is told before anything is trained: every line at once, in the words that users know."""

import json

import pytest

from tunesmith.db.files import File
from tunesmith.errors import InvalidData
from tunesmith.jobs.prepare import Source, check
from tunesmith.recipes.run import parse
from tunesmith.runfolder import RunFolder

GOOD = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}
PAIR = {
    "input": {"messages": [{"role": "user", "content": "hi"}]},
    "preferred_output": [{"role": "assistant", "content": "yes"}],
    "non_preferred_output": [{"role": "assistant", "content": "no"}],
}


@pytest.fixture
def checked(tmp_path):
    def made(rows, param="training_file", **recipe):
        name = f"{param.removesuffix('_file')}.jsonl"
        path = tmp_path / name
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        source = Source(param, name, File("file-1", "mine.jsonl", "fine-tune", 1, "00", 1))
        return check(RunFolder(tmp_path), parse({"data": {"train": name}} | recipe), [source], min_examples=10)

    return made


def fails(checked, rows, **fields):
    with pytest.raises(InvalidData) as caught:
        checked(rows, **fields)
    return caught.value


def test_every_line_that_is_wrong_is_named_with_its_reason_and_check(checked):
    bad = {"messages": [{"role": "user", "content": "hi"}]}
    error = fails(checked, [GOOD] * 10 + [bad, {"messages": [{"content": "hi"}]}, "7\n"])
    assert (error.code, error.param) == ("invalid_training_file", "training_file")
    assert error.message.startswith(
        "The job failed due to an invalid training file. Invalid file format. 3 of 13 examples of mine.jsonl cannot be used: "
        "line 11: There is no assistant message, so there is nothing to learn [example_missing_assistant_message]; "
        "line 12: Message 1 has no role; roles are system, "
    )
    assert error.message.endswith("line 13: It is a number, not a JSON object [data_type].")


def test_up_to_a_hundred_problems_are_listed_and_the_others_counted(checked):
    error = fails(checked, ["7\n"] * 130)
    assert error.message.count("not a JSON object") == 100
    assert error.message.endswith("; and 30 more.")


def test_an_extra_field_is_a_file_format_error(checked):
    extra = {"messages": [{"role": "user", "content": "hi", "weight": 1}, GOOD["messages"][1]]}
    error = fails(checked, [extra] + [GOOD] * 10)
    assert error.code == "invalid_file_format"
    assert error.message.startswith("The job failed due to a file format error in the training file. Invalid file format. 1 of")


def test_fewer_than_ten_examples_are_too_few_to_train_on_but_not_to_validate_with(checked):
    assert fails(checked, [GOOD] * 9).message.endswith("mine.jsonl has 9 example(s), but must have at least 10 examples.")
    assert checked([GOOD] * 10) == 10
    assert checked([GOOD], param="validation_file") == 1
    assert fails(checked, ["7\n"], param="validation_file").code == "invalid_validation_file"


def test_rows_of_another_methods_format_are_refused_until_that_method_is_asked(checked):
    error = fails(checked, [PAIR] * 10)
    assert error.message == (
        "The job failed due to an invalid training file. Input file file-1 is in the fine-tune-preference format, but the "
        "specified fine-tuning job is not using 'dpo' as the training method (provided method=supervised)."
    )
    assert checked([PAIR] * 10, method={"type": "dpo"}) == 10
    assert "not using 'supervised'" in fails(checked, [GOOD] * 10, method={"type": "dpo"}).message


def test_a_shape_that_nobody_knows_is_told_in_openais_words(checked):
    error = fails(checked, [{"ask": "hi"}])
    assert "Unexpected file format, expected either prompt/completion pairs or chat messages. mine.jsonl has the" in error.message


def test_an_image_is_refused_where_the_base_cannot_see(checked):
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    shown = {"messages": [{"role": "user", "content": [image]}, GOOD["messages"][1]]}
    error = fails(checked, [GOOD] * 10 + [shown])
    assert (error.code, error.param) == ("not_available", "training_file")
    assert "Line 11 of mine.jsonl holds an image, which tunesmith/tiny cannot see." in error.message
