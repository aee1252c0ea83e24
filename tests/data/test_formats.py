"""Rows and problems together are the file: nothing is dropped, and each problem has its file, line and reason."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tunesmith.data.formats import Problem, fingerprint, question, read_rows
from tunesmith.data.shapes import CONVERT
from tunesmith.errors import InvalidData
from tunesmith.paths import SUPPORT_DESK
from tunesmith.recipes.data import Format, Reading

SHARED = Path(__file__).parents[3] / "shared" / "data"
LAMINI = "lamini_docs_train_1260.jsonl"
GOOD = {"question": "hi", "answer": "yes"}


def write(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text(f"[{', '.join(lines)}]" if name.endswith(".json") else "\n".join(lines) + "\n")
    return path


def test_a_problem_has_file_line_and_reason_and_the_good_rows_stand(tmp_path):
    read = read_rows(write(tmp_path, [GOOD, "{oops", {"question": "hi"}, GOOD, {"question": "hi", "answer": ""}]))
    assert [row.line for row in read.rows] == [1, 4]
    assert read.problems[1:] == [
        Problem("rows.jsonl", 3, "There is no field answer."),
        Problem("rows.jsonl", 5, "The field answer is empty."),
    ]
    assert str(read.problems[0]).startswith("rows.jsonl, line 2: It is not JSON")
    assert read.format == "question_answer"


def test_rows_of_a_json_list_are_numbered_as_rows(tmp_path):
    read = read_rows(write(tmp_path, [GOOD, 7], "rows.json"))
    assert str(read.problems[0]) == "rows.json, row 2: It is a number, not a JSON object."


def test_the_shape_is_known_from_the_first_row_that_has_one(tmp_path):
    read = read_rows(write(tmp_path, ["{oops", {"id": 1}, GOOD, {"text": "other"}]))
    assert read.format == "question_answer"
    assert [(problem.line, problem.reason) for problem in read.problems[1:]] == [
        (2, "There is no field question."),
        (4, "There is no field question."),
    ]


def test_a_file_of_broken_lines_only_tells_each_of_them(tmp_path):
    read = read_rows(write(tmp_path, ["{oops"] * 300))
    assert read.rows == []
    assert [problem.line for problem in read.problems] == list(range(1, 301))


def test_a_shape_that_nobody_knows_names_the_fields_and_the_way_out(tmp_path):
    for count in (1, 500):
        with pytest.raises(InvalidData, match="fields ask, reply, which is no known shape.*--map question=COLUMN"):
            read_rows(write(tmp_path, [{"ask": "hi", "reply": "yes"}] * count))


def test_columns_are_named_by_a_map(tmp_path):
    path = write(tmp_path, [{"ask": "hi", "reply": "yes"}, {"ask": "hi"}])
    read = read_rows(path, Reading(map={"question": "ask", "answer": "reply"}))
    assert read.rows[0].messages[0] == {"role": "user", "content": "hi"}
    assert read.problems[0].reason == "There is no column reply, which was mapped to answer."
    swapped = read_rows(write(tmp_path, [{"prompt": "hi", "text": "yes"}]), Reading(map={"question": "prompt", "answer": "text"}))
    assert swapped.format == "question_answer"


def test_a_format_may_be_named_where_fields_tell_another(tmp_path):
    path = write(tmp_path, [{**GOOD, "text": "once"}])
    assert read_rows(path).format == "question_answer"
    assert read_rows(path, Reading(format="text")).rows[0].text == "once"


def test_a_field_that_we_do_not_have_is_refused(tmp_path):
    path = write(tmp_path, [GOOD])
    with pytest.raises(InvalidData, match="'ask' is not a field of ours"):
        read_rows(path, Reading(map={"ask": "question"}))


def test_the_formats_are_those_that_a_recipe_may_name():
    assert {"auto", *CONVERT} == set(Format.__args__)


@pytest.mark.parametrize(("name", "content"), [("a.json", "[]"), ("a.csv", "question,answer\n")])
def test_a_file_without_rows_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidData, match=f"{name} holds no rows"):
        read_rows(tmp_path / name)


def test_json_jsonl_csv_and_parquet_give_the_same_rows(tmp_path):
    rows = [{"question": f"q{n}", "answer": "two\nlines"} for n in range(3)]
    (tmp_path / "a.csv").write_text("question,answer\n" + "".join(f'q{n},"two\nlines"\n' for n in range(3)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    paths = [write(tmp_path, rows), write(tmp_path, rows, "a.json"), tmp_path / "a.csv", tmp_path / "a.parquet"]
    first, *others = [[row.messages for row in read_rows(path).rows] for path in paths]
    assert len(first) == 3
    assert all(other == first for other in others)


def test_equal_rows_have_equal_fingerprints_and_a_question_is_all_before_the_answer(tmp_path):
    one, same, other = read_rows(write(tmp_path, [GOOD, GOOD, {**GOOD, "answer": "no"}])).rows
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    again = [{"role": "user", "content": "HI "}, {"role": "assistant", "content": "?"}]
    assert question(one) == question(other) == question(replace(one, messages=again))


def test_the_support_desk_is_chat_without_a_problem():
    for name, count in (("train.jsonl", 320), ("heldout.jsonl", 64)):
        read = read_rows(SUPPORT_DESK / name)
        assert (len(read.rows), read.format, read.problems) == (count, "chat", [])


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data beside the checkout")
@pytest.mark.parametrize(
    ("name", "format", "num_rows", "problems"),
    [
        ("alpaca_en_demo.json", "alpaca", 999, []),
        ("dpo_en_demo.json", "preference", 300, []),
        ("glaive_toolcall_en_demo.json", "sharegpt", 300, []),
        ("gsm8k_train_2000.jsonl", "question_answer", 2000, []),
        ("kto_en_demo.json", "kto", 300, []),
        ("lamini_docs_train_1260.jsonl", "question_answer", 1259, [f"{LAMINI}, line 424: The field answer is empty."]),
    ],
)
def test_real_files_are_recognised_and_their_rows_counted(name, format, num_rows, problems):
    read = read_rows(SHARED / name)
    assert (read.format, len(read.rows)) == (format, num_rows)
    assert [str(problem) for problem in read.problems] == problems


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data beside the checkout")
def test_real_tool_calls_and_pairs_are_whole():
    glaive = read_rows(SHARED / "glaive_toolcall_en_demo.json").rows
    calls = [call for row in glaive for message in row.messages for call in message.get("tool_calls", [])]
    assert len(calls) > 150
    assert all(isinstance(call["function"]["arguments"], dict) for call in calls)
    placeholders = read_rows(SHARED / "identity.json")
    assert (len(placeholders.rows), len(placeholders.problems)) == (6, 85)
    named = read_rows(SHARED / "identity.json", Reading(values={"name": "Ada", "author": "Acme"}))
    assert (len(named.rows), named.problems) == (91, [])
    pairs = read_rows(SHARED / "dpo_en_demo.json").rows
    assert all(row.messages[-1]["role"] == "user" and row.chosen != row.rejected for row in pairs)
    labels = [row.label for row in read_rows(SHARED / "kto_en_demo.json").rows]
    assert labels.count(True) == labels.count(False) == 150


def test_the_page_about_data_lists_every_format_and_its_example_runs():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    formats = page.split("| format | fields |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", formats, re.M)) == set(CONVERT)
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", page, re.S).group(1), names)  # our own page
    assert len(names["encoded"].ids) == len(names["encoded"].loss_mask)


def test_reading_a_file_needs_neither_torch_nor_transformers_nor_pandas():
    code = (
        "import sys; from pathlib import Path; from tunesmith.data.formats import read_rows; "
        f"read_rows(Path({str(SUPPORT_DESK / 'train.jsonl')!r})); "
        "print([name for name in ('torch', 'transformers', 'pandas', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
