"""The loss mask is what the template says, for any template that only appends; others are refused, nothing is guessed."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tunesmith.data import chat_template
from tunesmith.data.chat_template import encode_pair, prompt_ids, text_ids
from tunesmith.data.formats import Row
from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.errors import InvalidData
from tunesmith.paths import TINY

TOKENIZER = load_tokenizer(TINY)


def says(role, content):
    return {"role": role, "content": content}


ASKED = [says("user", "Where?"), says("assistant", "Here.")]


def encode(*arguments):
    """The one row that most conversations become."""
    (found,) = chat_template.encode(*arguments)
    return found


def encode_conversation(*arguments):
    (found,) = chat_template.encode_conversation(*arguments)
    return found


def trained(encoded, tokenizer=TOKENIZER) -> str:
    kept = [token for token, trains in zip(encoded.ids, encoded.loss_mask, strict=True) if trains]
    return tokenizer.decode(kept, skip_special_tokens=False)


def whole(encoded, tokenizer=TOKENIZER) -> str:
    return tokenizer.decode(encoded.ids, skip_special_tokens=False)


def bytes_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges, made here, with <s>, </s> and a start token before plain text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<s>", "</s>"])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


LLAMA_LIKE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)


def test_only_answers_and_the_token_that_ends_them_train():
    messages = [says("system", "Be kind."), *ASKED, says("user", "Sure?"), says("assistant", "Yes.")]
    encoded = encode(TOKENIZER, Row(1, messages=messages))
    assert trained(encoded) == "Here.<|im_end|>Yes.<|im_end|>"
    assert whole(encoded).count("<|im_start|>") == 5


def test_weights_leave_out_single_answers():
    row = Row(1, messages=[*ASKED, says("user", "Sure?"), says("assistant", "Yes.")], weights=[0, 0, 0, 1])
    assert trained(encode(TOKENIZER, row)) == "Yes.<|im_end|>"
    with pytest.raises(InvalidData, match="No token of it would be trained"):
        encode_conversation(TOKENIZER, ASKED, [], [0, 0])


def test_a_template_without_markers_is_masked_all_the_same():
    tokenizer = bytes_tokenizer(LLAMA_LIKE)
    encoded = encode_conversation(tokenizer, [*ASKED, says("user", "Sure?"), says("assistant", " Yes. ")], [])
    assert whole(encoded, tokenizer) == "<s>[INST] Where? [/INST] Here.</s>[INST] Sure? [/INST] Yes.</s>"
    assert trained(encoded, tokenizer) == " Here.</s> Yes.</s>"


def test_a_template_that_does_not_end_answers_is_refused():
    tokenizer = bytes_tokenizer("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(InvalidData, match="does not end message 2 with a control token, so the model would not learn to stop"):
        encode_conversation(tokenizer, ASKED, [])


def test_a_template_that_refuses_a_conversation_is_quoted():
    tokenizer = bytes_tokenizer("{{ raise_exception('System role not supported') }}")
    with pytest.raises(InvalidData, match="chat template cannot render it: System role not supported"):
        encode_conversation(tokenizer, ASKED, [])


@pytest.mark.parametrize("answer", ["\n\nHere.", "\nHere.\n", " Here.", "\t", "😀", "<tool_call>"])
def test_a_prompt_is_cut_where_the_engine_cuts_it_even_if_a_token_would_span_the_border(answer):
    encoded = encode_conversation(TOKENIZER, [says("user", "Where?"), says("assistant", answer)], [])
    prompt = prompt_ids(TOKENIZER, [says("user", "Where?")])
    assert encoded.ids[: len(prompt)] == prompt
    assert not any(encoded.loss_mask[: len(prompt)])
    assert trained(encoded) == answer + "<|im_end|>"


def test_an_earlier_answer_may_begin_with_a_line_break():
    messages = [says("user", "Where?"), says("assistant", "\nHere."), says("user", "Sure?"), says("assistant", "Yes.")]
    assert trained(encode_conversation(TOKENIZER, messages, [])) == "\nHere.<|im_end|>Yes.<|im_end|>"


def test_a_conversation_may_begin_with_an_answer():
    assert trained(encode_conversation(TOKENIZER, [says("assistant", "a"), *ASKED], [])) == "a<|im_end|>Here.<|im_end|>"


def test_text_that_spells_a_control_token_is_refused():
    for text in ("over<|im_end|>", "<|reserved_3|>"):
        with pytest.raises(InvalidData, match=r"Message 1 holds the control token <\|.*\|>, which no text may"):
            encode_conversation(TOKENIZER, [says("user", text), ASKED[1]], [])
        with pytest.raises(InvalidData, match="Message 1 holds the control token"):
            prompt_ids(TOKENIZER, [says("user", text)])


def test_a_pair_trains_both_answers_and_not_the_prompt():
    yes, no = [says("assistant", "Yes.")], [says("assistant", "No.")]
    row = Row(1, messages=[*ASKED, ASKED[0]], chosen=yes, rejected=no, kind="preference")
    chosen, rejected = encode_pair(TOKENIZER, row)
    assert (trained(chosen), trained(rejected)) == ("Yes.<|im_end|>", "No.<|im_end|>")
    with pytest.raises(InvalidData, match="two answers"):
        encode(TOKENIZER, row)


def test_a_labelled_row_trains_its_last_answer():
    row = Row(1, messages=[*ASKED, ASKED[0], says("assistant", "Yes.")], label=False, kind="kto")
    assert trained(encode(TOKENIZER, row)) == "Yes.<|im_end|>"


def test_a_completion_trains_with_the_end_token_and_its_prompt_does_not():
    encoded = encode(TOKENIZER, Row(1, prompt="1, 2,", completion=" 3", kind="prompt_completion"))
    assert whole(encoded) == "1, 2, 3<|im_end|>"
    assert trained(encoded) == " 3<|im_end|>"


def test_plain_text_trains_whole_after_a_first_token_that_nothing_predicts():
    encoded = encode(TOKENIZER, Row(1, text="one two<|im_end|>", kind="text"))
    assert whole(encoded) == "one two<|im_end|>"
    assert encoded.loss_mask == [False] + [True] * (len(encoded.ids) - 1)


def test_plain_text_begins_with_the_start_token_where_there_is_one():
    tokenizer = bytes_tokenizer(LLAMA_LIKE)
    assert tokenizer.decode(text_ids(tokenizer, "ab")) == "<s>ab"
    encoded = encode(tokenizer, Row(1, text="ab", kind="text"))
    assert whole(encoded, tokenizer) == "<s>ab</s>"
    assert trained(encoded, tokenizer) == "ab</s>"


def test_the_engine_may_send_what_clients_send():
    normal = prompt_ids(TOKENIZER, [says("system", "Be kind."), says("user", "Where?")])
    parts = [{"type": "text", "text": "Where?"}]
    assert prompt_ids(TOKENIZER, [says("developer", "Be kind."), says("user", parts)]) == normal
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at":"it"}'}}
    history = [says("user", "Where?"), {"role": "assistant", "content": None, "tool_calls": [call]}, says("tool", "seen")]
    text = TOKENIZER.decode(prompt_ids(TOKENIZER, history), skip_special_tokens=False)
    assert '<tool_call>\n{"name": "look", "arguments": {"at": "it"}}\n</tool_call><|im_end|>' in text
    assert text.endswith("<|im_start|>assistant\n")
    with pytest.raises(InvalidData, match="Message 1 has the role 'bot'"):
        prompt_ids(TOKENIZER, [says("bot", "hi")])
