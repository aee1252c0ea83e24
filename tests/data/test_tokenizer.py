"""The built-in base's tokenizer keeps its promises, and any local folder's is made ready in the one place."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.data.chat_template import EncodedRow, encode_conversation, prompt_ids, render
from tunesmith.data.tokenizer import PLAIN_TEMPLATE, load_tokenizer
from tunesmith.errors import InvalidData
from tunesmith.paths import TINY

ALPACA = Path(__file__).parents[3] / "shared" / "data" / "alpaca_en_demo.json"
TOKENIZER = load_tokenizer(TINY)

SYSTEM = {"role": "system", "content": "You are Anna the baker."}
USER = {"role": "user", "content": "What is the weather in Paris?"}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": '{"sky": "grün"}'}
ANSWER = {"role": "assistant", "content": "It is green. 😀"}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CONVERSATIONS = [
    [USER, ANSWER],
    [SYSTEM, USER, ANSWER],
    [SYSTEM, USER, ANSWER, USER, ANSWER],
    [SYSTEM, USER, CALLS, RESULT, ANSWER],
    [USER, {**CALLS, "content": "I look.", "tool_calls": [CALL, CALL]}, RESULT, RESULT, ANSWER, USER, ANSWER],
    [USER, ANSWER, SYSTEM, USER, ANSWER],
]


def text_of(tokenizer, ids) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def trained_text(encoded: EncodedRow) -> str:
    return text_of(TOKENIZER, [token for token, trains in zip(encoded.ids, encoded.loss_mask, strict=True) if trains])


def test_it_has_about_4096_entries_and_64_reserved_ones():
    assert 4000 <= len(TOKENIZER) <= 4096
    ids = [TOKENIZER(f"<|reserved_{n}|>", add_special_tokens=False)["input_ids"] for n in range(64)]
    assert {len(one) for one in ids} == {1}
    assert len({one[0] for one in ids}) == 64


@pytest.mark.skipif(not ALPACA.is_file(), reason="needs the real data beside the checkout")
def test_english_takes_at_least_two_and_a_half_characters_a_token():
    texts = [row[name] for row in json.loads(ALPACA.read_text()) for name in ("instruction", "input", "output")]
    num_tokens = sum(len(ids) for ids in TOKENIZER(texts)["input_ids"])
    assert sum(map(len, texts)) / num_tokens >= 2.5


@pytest.mark.parametrize("text", ["plain", "  two  spaces\n\n\ttab ", "Größe 東京 😀\u2028", "\x00", '{"a": [1.5]}', "x" * 5000])
def test_any_text_comes_back_whole(text):
    assert text_of(TOKENIZER, TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize("tools", [[], [TOOL]])
@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_the_template_only_appends(messages, tools):
    whole = render(TOKENIZER, messages, tools)
    ids = TOKENIZER(whole, add_special_tokens=False)["input_ids"]
    for number, message in enumerate(messages[1:], start=1):
        assert whole.startswith(render(TOKENIZER, messages[:number], tools))
        if message["role"] == "assistant":
            prompt = prompt_ids(TOKENIZER, messages[:number], tools)
            assert ids[: len(prompt)] == prompt


@pytest.mark.parametrize("tools", [[], [TOOL]])
@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_its_generation_markers_and_our_loss_mask_agree(messages, tools):
    marked = TOKENIZER.apply_chat_template(messages, tools=tools or None, return_dict=True, return_assistant_tokens_mask=True)
    ours = encode_conversation(TOKENIZER, messages, tools)[0]
    assert ours.ids == marked["input_ids"]
    assert ours.loss_mask == [bool(mark) for mark in marked["assistant_masks"]]


def test_tools_and_calls_are_in_the_form_of_hermes():
    text = render(TOKENIZER, [SYSTEM, USER, CALLS, RESULT, ANSWER], [TOOL])
    listed = re.search(r"<tools>\n(.*)\n</tools>", text).group(1)
    assert json.loads(listed) == TOOL
    assert text.startswith(f"<|im_start|>system\n{SYSTEM['content']}\n<tools>")
    call = re.search(r"<\|im_start\|>assistant\n<tool_call>\n(.*)\n</tool_call><\|im_end\|>", text).group(1)
    assert json.loads(call) == {"name": "get_weather", "arguments": {"city": "Paris"}}
    assert f"<|im_start|>tool\n<tool_response>\n{RESULT['content']}\n</tool_response><|im_end|>\n" in text


def test_a_call_and_the_token_that_ends_it_are_trained():
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>'
    encoded = encode_conversation(TOKENIZER, [USER, CALLS, RESULT, ANSWER], [TOOL])[0]
    assert trained_text(encoded) == call + "It is green. 😀<|im_end|>"
    assert encoded.num_trained < len(encoded.ids)


def changed(tmp_path: Path, **settings) -> Path:
    """A copy of the built-in tokenizer without a template and with other settings."""
    shutil.copy(TINY / "tokenizer.json", tmp_path)
    config = json.loads((TINY / "tokenizer_config.json").read_text()) | settings
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_base_without_template_and_padding_gets_both(tmp_path):
    tokenizer = load_tokenizer(changed(tmp_path, pad_token=None, eos_token="<|endoftext|>"))
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.chat_template == PLAIN_TEMPLATE
    text = render(tokenizer, [SYSTEM, USER, ANSWER], [])
    assert text == (
        "System:\nYou are Anna the baker.\n\nUser:\nWhat is the weather in Paris?\n\nAssistant:\nIt is green. 😀<|endoftext|>\n\n"
    )


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_the_plain_template_keeps_the_same_promises(tmp_path, messages):
    tokenizer = load_tokenizer(changed(tmp_path))
    marked = tokenizer.apply_chat_template(messages, tools=[TOOL], return_dict=True, return_assistant_tokens_mask=True)
    ours = encode_conversation(tokenizer, messages, [TOOL])[0]
    assert ours.ids == marked["input_ids"]
    assert ours.loss_mask == [bool(mark) for mark in marked["assistant_masks"]]


def test_a_folder_without_a_tokenizer_or_an_end_token_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(InvalidData, match="has no tokenizer that can be loaded"):
        load_tokenizer(tmp_path)
    with pytest.raises(InvalidData, match="has no end token"):
        load_tokenizer(changed(tmp_path, eos_token=None))


def test_a_plain_tokenizer_is_what_auto_tokenizer_makes_and_imports_no_model_code():
    code = """
import sys
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.paths import TINY
ours = load_tokenizer(TINY)
assert "transformers.modeling_utils" not in sys.modules
from transformers import AutoTokenizer
theirs = AutoTokenizer.from_pretrained(TINY)
text = "A line,\\n  caf\\u00e9 \\U0001f600 <|im_end|> 12345"
assert type(ours) is type(theirs)
assert ours(text).input_ids == theirs(text).input_ids
assert ours.chat_template == theirs.chat_template
assert ours.all_special_tokens == theirs.all_special_tokens
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
