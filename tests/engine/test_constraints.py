"""A form allows what its grammar allows, ends by itself, and refuses with the reason what it cannot hold."""

import json
import random
from typing import Any

import jsonschema
import pytest

from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.engine.constraints import (
    ANY_OBJECT,
    SPACED,
    Form,
    Forms,
    choice_grammar,
    json_grammar,
    json_term,
    lark_grammar,
    regex_grammar,
)
from tunesmith.errors import InvalidRequest
from tunesmith.paths import TINY

TOKENIZER = load_tokenizer(TINY)
END = TOKENIZER.eos_token_id


@pytest.fixture(scope="module")
def forms() -> Forms:
    return Forms(TOKENIZER, frozenset({END}))


def allowed(form: Form) -> list[int]:
    bits = int.from_bytes(form.allowed(), "little")
    return [token for token in range(bits.bit_length()) if bits >> token & 1]


def play(form: Form, dice: random.Random, limit: int = 400) -> tuple[str, bool]:
    """Random allowed tokens, until the form is whole: the text, and whether it came to an end."""
    tokens: list[int] = []
    for _ in range(limit):
        token = dice.choice(allowed(form))
        if token == END:
            return TOKENIZER.decode(tokens), True
        tokens.append(token)
        if form.accept(token):
            return TOKENIZER.decode(tokens), True
    return TOKENIZER.decode(tokens), False


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "ages": {"type": "array", "items": {"enum": [1, 22]}, "maxItems": 3},
    },
    "required": ["name", "ages"],
    "additionalProperties": False,
}


def test_json_of_a_schema_is_compact_and_valid_whatever_is_drawn(forms: Forms) -> None:
    dice = random.Random(1)
    for form in forms.make_now(json_grammar(SCHEMA), 20, "response_format"):
        text, is_whole = play(form, dice)
        assert is_whole
        value = json.loads(text)
        jsonschema.validate(value, SCHEMA)
        assert text.startswith('{"name":"')


def some_schema(dice: random.Random, depth: int = 2) -> dict[str, Any]:
    """A bounded schema of any kind that we hold."""
    if depth and dice.random() < 0.4:
        return {"type": "array", "items": some_schema(dice, depth - 1), "minItems": dice.randint(0, 1), "maxItems": 3}
    if depth and dice.random() < 0.6:
        parts = {name: some_schema(dice, depth - 1) for name in dice.sample(["name", "größe", "a b", "数学"], dice.randint(1, 3))}
        needed = [name for name in parts if dice.random() < 0.7]
        return {"type": "object", "properties": parts, "required": needed, "additionalProperties": False}
    return dict(dice.choice([
        {"type": "string", "maxLength": 5}, {"type": "string", "pattern": "^[a-f]{2,4}$"}, {"type": "string", "format": "date"},
        {"type": "integer", "minimum": -20, "maximum": 300}, {"type": ["boolean", "null"]}, {"enum": ["x", 3, None, [1]]},
        {"const": {"k": "v"}}, {"anyOf": [{"type": "boolean"}, {"type": "string", "maxLength": 2}]},
    ]))


@pytest.mark.parametrize("seed", range(25))
def test_what_a_bounded_schema_lets_through_is_always_valid(forms: Forms, seed: int) -> None:
    dice = random.Random(seed)
    schema = some_schema(dice)
    for form in forms.make_now(json_grammar(schema), 4, "response_format"):
        text, is_whole = play(form, dice)
        assert is_whole
        jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())


def test_choices_and_patterns_come_out_as_they_are(forms: Forms) -> None:
    choices = ['say "hi"\\', "né w\n", "数学", "x"]
    dice = random.Random(2)
    said = {play(form, dice)[0] for form in forms.make_now(choice_grammar(choices), 60, "structured_outputs")}
    assert said == set(choices)
    form = forms.make_now(regex_grammar("[a-c]{3}-[0-9]{2}"), 1, "structured_outputs")[0]
    text, is_whole = play(form, dice)
    assert is_whole
    assert len(text) == 6
    assert play(forms.make_now(lark_grammar('start: "a" "b"'), 1, "structured_outputs")[0], dice) == ("ab", True)
    spaced = forms.make_now(lark_grammar("start: " + json_term({"const": {"a": [1, 2]}}, SPACED)), 1, "tools")[0]
    assert play(spaced, dice) == ('{"a": [1, 2]}', True)


def test_an_end_token_is_allowed_only_where_the_form_may_end(forms: Forms) -> None:
    form = forms.make_now(regex_grammar("ab?"), 1, "structured_outputs")[0]
    assert END not in allowed(form)
    assert not form.accept(TOKENIZER.encode("a")[0])
    assert END in allowed(form)
    assert form.accept(TOKENIZER.encode("b")[0]), "nothing may come after it"


def test_forms_of_one_grammar_do_not_share_their_place(forms: Forms) -> None:
    first, second = forms.make_now(regex_grammar("ab"), 2, "structured_outputs")
    before = second.allowed()
    first.accept(TOKENIZER.encode("a")[0])
    assert second.allowed() == before != first.allowed()


def test_special_tokens_and_ids_beyond_the_tokenizer_are_never_allowed(forms: Forms) -> None:
    found = allowed(forms.make_now(regex_grammar("(.|\n)*"), 1, "structured_outputs")[0])
    assert set(TOKENIZER.all_special_ids) & set(found) == {END}
    assert max(found) < len(TOKENIZER)


@pytest.mark.parametrize(("grammar", "reason"), [
    (json_grammar({"type": "nonsense"}), "nonsense"),
    (json_grammar({"type": "array", "uniqueItems": True}), "uniqueItems"),
    (json_grammar({"$ref": "http://example.com/schema"}), "example.com"),
    (json_grammar({"$ref": "#"}), "NoExtension"),
    (regex_grammar("(a"), "unclosed"),
    (regex_grammar("(?=a)b"), "look"),
    (lark_grammar("nonsense"), "Expected"),
    (regex_grammar("a" * 300_000), "longer"),
])
def test_what_cannot_be_held_is_refused_with_the_reason(forms: Forms, grammar: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        forms.make_now(grammar, 1, "response_format")
    assert caught.value.param == "response_format"
    assert reason in caught.value.message
    assert "<state>" not in caught.value.message
    assert len(caught.value.message) < 400


async def test_a_wrong_form_does_not_spoil_the_next(forms: Forms) -> None:
    wrong: Any = json_grammar({"type": "nonsense"})
    with pytest.raises(InvalidRequest):
        await forms.make(wrong, 1, "response_format")
    form, = await forms.make(json_grammar(ANY_OBJECT), 1, "response_format")
    assert allowed(form)
