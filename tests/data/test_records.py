"""Files open as numbered records; what cannot be read is told by line or row, or, for a whole file, in one sentence."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from tunesmith.data.records import open_records
from tunesmith.errors import InvalidData, NotFound


def opened(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_records(path)
    return source.unit, list(source.rows)


def values(rows):
    return [row.value for row in rows]


def test_jsonl_is_numbered_by_the_files_lines_and_blank_lines_are_no_rows(tmp_path):
    unit, rows = opened(tmp_path, "a.jsonl", '{"text": "a"}\n\n  \n{"text": "b"}\n')
    assert unit == "line"
    assert [(row.line, row.value) for row in rows] == [(1, {"text": "a"}), (4, {"text": "b"})]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"\n"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, mark, end, last):
    content = mark + end.join([b'{"text": "\xc3\xa4"}', b'{"text": "b"}']) + last
    for name in ("a.jsonl", "a.json", "upload"):
        assert values(opened(tmp_path, name, content)[1]) == [{"text": "ä"}, {"text": "b"}]
    table = mark + end.join([b"text,label", b"\xc3\xa4,1"]) + last
    assert values(opened(tmp_path, "a.csv", table)[1]) == [{"text": "ä", "label": "1"}]
    listed = mark + end.join([b"[", b'{"text": "\xc3\xa4"}', b"]"]) + last
    for name in ("a.json", "a.jsonl", "upload"):
        assert opened(tmp_path, name, listed)[0] == "row"
        assert values(opened(tmp_path, name, listed)[1]) == [{"text": "ä"}]


def test_a_json_list_on_one_line_is_numbered_by_row_whatever_its_name(tmp_path):
    for name in ("a.json", "a.jsonl", "upload"):
        unit, rows = opened(tmp_path, name, '[{"text": "a"}, {"text": "b"}]')
        assert unit == "row"
        assert [row.line for row in rows] == [1, 2]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'text': 1}", "It is not JSON: Expecting property name enclosed in double quotes at character 2."),
        ('{"text": "a"', "It is not JSON: Expecting ',' delimiter at character 13."),
        ('{"text": "a"} {"text": "b"}', "It is not JSON: Extra data at character 15."),
        ("[1, 2]", "It is a list, not a JSON object."),
        ('"text"', "It is a string, not a JSON object."),
        ("7", "It is a number, not a JSON object."),
        ("true", "It is true or false, not a JSON object."),
        ("null", "It is null, not a JSON object."),
        ('{"text": "\\ud83d"}', "It holds half a character (a lone \\ud800-\\udfff escape)."),
    ],
)
def test_a_line_that_is_no_object_says_why_and_the_others_stand(tmp_path, line, reason):
    _, rows = opened(tmp_path, "a.jsonl", f'{{"text": "a"}}\n{line}\n{{"text": "b"}}\n')
    assert [row.line for row in rows] == [1, 2, 3]
    assert values(rows) == [{"text": "a"}, None, {"text": "b"}]
    assert [row.reason for row in rows] == ["", reason, ""]


def test_a_line_of_a_stranger_kind_is_a_reason_too(tmp_path):
    deep = "[" * 200_000 + "]" * 200_000
    lines = [b'{"text": "a"}', b'{"text": "\xff"}', f'{{"a": {deep}}}'.encode(), f'{{"a": {"9" * 5000}}}'.encode()]
    _, rows = opened(tmp_path, "a.jsonl", b"\n".join(lines))
    assert rows[1].reason == "It is not UTF-8: byte 11 of the line."
    assert rows[2].reason.startswith("It cannot be read as JSON: ")
    assert rows[3].reason.startswith("It cannot be read as JSON: ")


def test_whole_characters_written_as_two_escapes_are_fine(tmp_path):
    assert values(opened(tmp_path, "a.jsonl", '{"text": "\\ud83d\\ude00"}')[1]) == [{"text": "😀"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl is empty."),
        ("a.csv", b"", "a.csv is empty."),
        ("a.json", b" \n\n", "a.json is empty."),
        ("a.jsonl", b"\xef\xbb\xbf", "a.jsonl is empty."),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "a.jsonl is UTF-16."),
        ("a.parquet", b"text\nx\n", "a.parquet is not a Parquet file: it does not begin with PAR1."),
        ("a.parquet", b"PAR1 and nothing", "a.parquet is not a Parquet file that can be read: "),
        ("a.json", b'[\n{"text": "a"},\n{"text" "b"}]', "a.json is not JSON: Expecting ':' delimiter at line 3, column 9."),
        ("a.json", b'{\n"text": "a"\n}', "a.json holds one object, not rows."),
        ("a.json", b"hello there", "a.json is not JSON: Expecting value at line 1, column 1."),
        ("a.json", b'["\xff"]', "a.json is not UTF-8: byte 3."),
        ("a.docx", b"hello there", "a.docx is not a kind of file that can be read."),
        ("a.csv", b"text\n\xff\n", "a.csv is not UTF-8: invalid start byte."),
        ("a.csv", b'text,label\n"a"b,1\n', "a.csv is not CSV: line 2: ',' expected after '\"'."),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence_and_a_next_step(tmp_path, name, content, message):
    with pytest.raises(InvalidData) as caught:
        opened(tmp_path, name, content)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFound, match=str(tmp_path / "none.jsonl")):
        open_records(tmp_path / "none.jsonl")
    with pytest.raises(InvalidData, match=f"The folder {tmp_path.name} has no data files"):
        list(open_records(tmp_path).rows)


def test_csv_rows_are_numbered_by_the_line_they_begin_on(tmp_path):
    text = 'question,answer\n"two\nlines",yes\n\nplain,no\nshort\na,b,c\n'
    unit, rows = opened(tmp_path, "a.csv", text)
    assert unit == "line"
    assert [row.line for row in rows] == [2, 5, 6, 7]
    assert rows[0].value == {"question": "two\nlines", "answer": "yes"}
    assert rows[2].reason == "It has 1 cells, but the header has 2."
    assert rows[3].reason == "It has 3 cells, but the header has 2."


def test_csv_may_be_parted_by_tabs_or_semicolons_and_have_long_cells(tmp_path):
    long = "x" * 200_000
    assert values(opened(tmp_path, "a.tsv", f"question\tanswer\na,b\t{long}\n")[1]) == [{"question": "a,b", "answer": long}]
    assert values(opened(tmp_path, "a.csv", "question;answer\na,b;c\n")[1]) == [{"question": "a,b", "answer": "c"}]


def test_parquet_rows_come_without_the_nulls_that_pad_their_structs(tmp_path):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes", "weight": 1}]
    table = pyarrow.Table.from_pylist([{"messages": messages}, {"messages": messages[:1]}])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    source = open_records(tmp_path / "a.parquet")
    assert source.unit == "row"
    assert [(row.line, row.value) for row in source.rows] == [(1, {"messages": messages}), (2, {"messages": messages[:1]})]


def test_a_large_file_is_streamed(tmp_path):
    path = tmp_path / "large.jsonl"
    path.write_text("".join(json.dumps({"text": str(n)}) + "\n" for n in range(1000)) + "not read yet")
    rows = open_records(path).rows
    assert next(rows).value == {"text": "0"}
    assert sum(row.value is not None for row in rows) == 999
