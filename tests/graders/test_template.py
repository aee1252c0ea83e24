"""Templates: what `{{ }}` may hold, and what becomes of it."""

import pytest

from tunesmith.errors import InvalidRequest
from tunesmith.graders.template import MissingVariable, parse_path, render

VALUES = {"item": {"x": {"y": "deep"}, "list": [{"a-b": 1}, True, None], "odd key": "q", "hole": "{{ item.x.y }}"},
          "sample": {"output_text": "said"}}


@pytest.mark.parametrize(("text", "filled"), [
    ("{{ item.x.y }} and {{sample.output_text}}", "deep and said"),
    ("{{item.list[0].a-b}}{{ item.list[1] }}{{ item.list[2] }}", "1truenull"),
    ("{{ item['odd key'] }} {{ item[\"x\"][\"y\"] }}", "q deep"),
    ("{{ item.x }}", '{"y": "deep"}'),
    ("{{ item.hole }}", "{{ item.x.y }}"),
    ("no holes, { one brace }", "no holes, { one brace }"),
])
def test_a_path_is_filled_in_once_and_what_is_no_text_is_json(text, filled):
    assert render(text, VALUES) == filled


@pytest.mark.parametrize(
    "text", ["{{ item.z }}", "{{ item.list[9] }}", "{{ item.x.y.z }}", "{{ sample.output_json.a }}", "{{ item.list.a }}"]
)
def test_what_a_row_lacks_is_missing_and_not_empty(text):
    with pytest.raises(MissingVariable):
        render(text, VALUES)


@pytest.mark.parametrize("path", ["", "row.x", "items.x", "item..x", "item.x()", "item.x + 1", "item[x]", "__class__", "item x"])
def test_nothing_but_a_path_into_item_or_sample_is_read(path):
    with pytest.raises(InvalidRequest) as caught:
        parse_path(path)
    assert caught.value.code == "invalid_template"


def test_a_text_of_many_braces_is_read_once():
    text = "{{" * 400_000
    assert render(text, VALUES) == text


def test_python_attributes_are_no_fields():
    with pytest.raises(MissingVariable):
        render("{{ item.__class__ }}", VALUES)
