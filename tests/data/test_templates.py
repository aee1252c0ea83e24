"""On stock templates of well-known models a row is what the engine would see, whether the template only appends or not.

The templates are those that TRL keeps of the models' own repositories; the tokenizer has no merges, and each model's own marks.
"""

from pathlib import Path

import pytest
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tunesmith.data.answers import end_token
from tunesmith.data.chat_template import encode, encode_pair, piece_ids, prompt_ids
from tunesmith.data.formats import Row
from tunesmith.data.render import render
from tunesmith.errors import InvalidData

STORED = Path(trl.__file__).parent / "chat_templates"
MARKS = {
    "qwen3": ("<|endoftext|>", "<|im_end|>", "<|im_start|>"),
    "qwen2_5": ("<|endoftext|>", "<|im_end|>", "<|im_start|>"),
    "llama3_1": ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|python_tag|>"),
    "gemma3": ("<bos>", "<end_of_turn>", "<start_of_turn>"),
    "deepseekv3": (
        "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>",
        "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
    ),
}
"""Template -> the model's first token, the one that ends an answer, and its other marks."""
OPENED = "<｜Assistant｜><think>\\n"
"""How TRL's copy of DeepSeek-V3's template opens an answer, as DeepSeek-R1's does; V3's own opens it without the thinking."""


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    marks = MARKS[name.removesuffix("_r1")]
    inner.add_special_tokens(list(marks))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=marks[0], eos_token=marks[1], pad_token=marks[0])
    template = (STORED / f"{name.removesuffix('_r1')}.jinja").read_text()
    if name == "deepseekv3":
        assert OPENED in template
        template = template.replace(OPENED, "<｜Assistant｜>")
    tokenizer.chat_template = template
    return tokenizer


NAMES = [*MARKS, "deepseekv3_r1"]
TOKENIZERS = {name: tokenizer_of(name) for name in NAMES}

USER, AGAIN = {"role": "user", "content": "Where is Anna?"}, {"role": "user", "content": "Sure?"}
HERE, YES = {"role": "assistant", "content": "She is here."}, {"role": "assistant", "content": "Yes, in Paris."}
SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {
        "name": "find_person", "arguments": {"name": "Anna \"A\" Ø", "deep": {"k": [1, 2.5, True]}}}}
]}
RESULT = {"role": "tool", "content": "Paris", "name": "find_person"}
TOOL = {"type": "function", "function": {"name": "find_person", "description": "find", "parameters": {
    "type": "object", "properties": {"name": {"type": "string"}, "deep": {"type": "object"}}, "required": ["name"]}}}
THOUGHT = YES | {"reasoning_content": "Paris it was."}
TALK = [SYSTEM, USER, HERE, AGAIN, YES]


def trained(name, row):
    kept = [token for token, trains in zip(row.ids, row.loss_mask, strict=True) if trains]
    return TOKENIZERS[name].decode(kept, skip_special_tokens=False)


def first_trained(row):
    return row.loss_mask.index(True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("messages", [[USER, HERE], TALK, [USER, HERE, AGAIN, YES, USER, HERE]])
def test_each_answer_is_trained_once_after_the_very_prompt_that_the_engine_sees(name, messages):
    tokenizer = TOKENIZERS[name]
    end = MARKS[name.removesuffix("_r1")][1]
    rows = encode(tokenizer, Row(1, messages=messages))
    answers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    prompts = [prompt_ids(tokenizer, messages[:n]) for n in answers]
    if len(rows) == 1:
        rows = rows * len(answers)
        assert trained(name, rows[0]).count(end) == len(answers)
    assert len(rows) == len(answers)
    for number, row, prompt in zip(answers, rows, prompts, strict=True):
        assert row.ids[: len(prompt)] == prompt
        assert not row.loss_mask[len(prompt) - 1]
        answer = tokenizer.decode(row.ids[len(prompt) :]).partition(end)[0]
        assert answer.endswith(messages[number]["content"])
        assert all(row.loss_mask[len(prompt) : len(prompt) + len(piece_ids(tokenizer, answer + end))])


def test_a_template_that_only_appends_makes_one_row_and_one_that_rewrites_makes_a_row_of_each_answer():
    counts = {name: len(encode(TOKENIZERS[name], Row(1, messages=TALK))) for name in NAMES}
    assert counts == {"qwen3": 2, "qwen2_5": 1, "llama3_1": 1, "gemma3": 1, "deepseekv3": 1, "deepseekv3_r1": 2}


def test_qwen3_learns_to_close_an_empty_thinking_at_each_answer_and_sees_none_before():
    first, second = encode(TOKENIZERS["qwen3"], Row(1, messages=TALK))
    assert trained("qwen3", first) == "<think>\n\n</think>\n\nShe is here.<|im_end|>"
    assert trained("qwen3", second) == "<think>\n\n</think>\n\nYes, in Paris.<|im_end|>"
    assert "think" not in TOKENIZERS["qwen3"].decode(second.ids[: first_trained(second)])


@pytest.mark.parametrize("name", ["qwen3", "deepseekv3_r1"])
@pytest.mark.parametrize("answer", [THOUGHT, YES | {"content": "<think>\nParis it was.\n</think>\n\nYes, in Paris."}])
def test_thinking_is_trained_where_the_template_has_a_place_for_it(name, answer):
    *_, last = encode(TOKENIZERS[name], Row(1, messages=[USER, HERE, AGAIN, answer]))
    opened = "<think>\n" if name == "qwen3" else ""
    end = MARKS[name.removesuffix("_r1")][1]
    assert trained(name, last) == f"{opened}Paris it was.\n</think>\n\nYes, in Paris.{end}"


def test_thinking_that_a_template_would_lose_is_refused():
    with pytest.raises(InvalidData, match="loses the reasoning_content of message 2"):
        encode(TOKENIZERS["llama3_1"], Row(1, messages=[USER, HERE | {"reasoning_content": "Hm."}]))


def test_weights_choose_which_answers_become_rows():
    rows = encode(TOKENIZERS["qwen3"], Row(1, messages=TALK, weights=[0, 0, 0, 0, 1]))
    assert [trained("qwen3", row) for row in rows] == ["<think>\n\n</think>\n\nYes, in Paris.<|im_end|>"]
    (row,) = encode(TOKENIZERS["qwen2_5"], Row(1, messages=TALK, weights=[0, 0, 1, 0, 0]))
    assert trained("qwen2_5", row) == "She is here.<|im_end|>"


@pytest.mark.parametrize("name", ["qwen3", "qwen2_5", "llama3_1", "deepseekv3"])
def test_a_tool_call_its_result_and_the_answer_are_trained_with_name_and_arguments(name):
    tokenizer, end = TOKENIZERS[name], MARKS[name][1]
    messages = [USER, CALL, RESULT, YES]
    rows = encode(tokenizer, Row(1, messages=messages, tools=[TOOL]))
    text = "".join(trained(name, row) for row in rows)
    assert text.count("find_person") == 1
    assert r"Anna \"A\" Ø" in text
    assert text.count(end) == 2
    assert "Paris\n" not in text
    for number, row in zip((1, 3), rows if len(rows) > 1 else rows * 2, strict=True):
        prompt = prompt_ids(tokenizer, messages[:number], [TOOL])
        assert row.ids[: len(prompt)] == prompt


def test_deepseek_v3_gets_its_arguments_as_text_for_it_joins_them_to_text():
    text = render(TOKENIZERS["deepseekv3"], [USER, CALL], [])
    assert '```json\n{"name": "Anna \\"A\\" Ø", "deep": {"k": [1, 2.5, true]}}\n```<｜tool▁call▁end｜>' in text


def test_calls_that_a_template_loses_are_refused_in_training_and_in_a_prompt():
    # Gemma 3's template has no place for calls: it writes the text beside them and no more.
    for messages in ([USER, CALL], [USER, CALL | {"content": "find_person name Anna"}]):
        with pytest.raises(InvalidData, match="does not write tool calls"):
            encode(TOKENIZERS["gemma3"], Row(1, messages=messages, tools=[TOOL]))
    with pytest.raises(InvalidData, match="does not write tool calls"):
        prompt_ids(TOKENIZERS["gemma3"], [USER, CALL, AGAIN])


def test_arguments_that_a_template_loses_are_refused_even_if_its_text_says_them():
    tokenizer = tokenizer_of("qwen2_5")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "tool_call.arguments | tojson", "{'probe_key': 'probe value'} | tojson if loop.length else ''"
    )
    said = CALL | {"content": 'Anna "A" Ø, name, deep, k, 1, 2.5, true'}
    with pytest.raises(InvalidData, match="loses 'Anna .* of the tool call find_person in message 2"):
        encode(tokenizer, Row(1, messages=[USER, said], tools=[TOOL]))


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_of_a_pair_begin_with_the_prompt_that_the_engine_sees(name):
    tokenizer = TOKENIZERS[name]
    row = Row(1, messages=[USER, HERE, AGAIN], chosen=[YES], rejected=[HERE], kind="preference")
    prompt = prompt_ids(tokenizer, row.messages)
    for side, answer in zip(encode_pair(tokenizer, row), (YES, HERE), strict=True):
        assert side.ids[: len(prompt)] == prompt
        assert not any(side.loss_mask[: len(prompt)])
        assert answer["content"] in trained(name, side)


@pytest.mark.parametrize("name", NAMES)
def test_the_token_that_ends_a_trained_answer_is_known_to_the_engine(name):
    tokenizer = tokenizer_of(name)
    end = MARKS[name.removesuffix("_r1")][1]
    tokenizer.eos_token = MARKS[name.removesuffix("_r1")][0]  # as a base model has it whose tokenizer ends text otherwise
    assert end_token(tokenizer) == tokenizer.convert_tokens_to_ids(end) != tokenizer.eos_token_id
    (last, *_) = encode(tokenizer, Row(1, messages=[USER, HERE]))
    assert [token for token, trains in zip(last.ids, last.loss_mask, strict=True) if trains][-1] == end_token(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert end_token(tokenizer) is None


def test_a_chain_of_calls_that_a_template_writes_otherwise_when_answered_is_refused():
    # DeepSeek-V3's template ends the results before an answer, but not before a further call.
    with pytest.raises(InvalidData, match="prompt of message 4 otherwise when it is answered"):
        encode(TOKENIZERS["deepseekv3"], Row(1, messages=[USER, CALL, RESULT, CALL, RESULT, YES]))
