"""A forced answer is nothing but calls of the given tools, in the form that the base's chat template shows."""

import json
import random
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.engine.constraints import Forms
from tunesmith.engine.tool_forms import HERMES, LLAMA, MISTRAL, MISTRAL_LIST, ToolDialect, ToolForm
from tunesmith.engine.vocabulary import Vocabulary
from tunesmith.paths import TINY

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "add", "parameters": {
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"],
        "additionalProperties": False,
    }}},
    {"type": "function", "function": {"name": "go"}},
]


def byte_tokenizer(chat_template: str, *special: str) -> PreTrainedTokenizerBase:
    """One token for each byte, and the special ones."""
    vocabulary = {letter: at for at, letter in enumerate(bytes_to_unicode().values())}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", chat_template=chat_template)
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(text, special=True) for text in special]})
    return tokenizer


BASES: list[tuple[PreTrainedTokenizerBase, ToolForm]] = [
    (load_tokenizer(TINY), HERMES),
    (byte_tokenizer("no tools here"), HERMES),
    (byte_tokenizer('<|python_tag|> {"name": "x", "parameters": {}}', "<|python_tag|>"), LLAMA),
    (byte_tokenizer("[TOOL_CALLS] [{}]", "[TOOL_CALLS]"), MISTRAL_LIST),
    (byte_tokenizer("[TOOL_CALLS]name[ARGS]{}", "[TOOL_CALLS]", "[ARGS]"), MISTRAL),
]


@pytest.mark.parametrize("is_parallel", [True, False])
@pytest.mark.parametrize(("tokenizer", "form"), BASES, ids=["tiny", "plain", "llama", "mistral old", "mistral"])
def test_a_forced_answer_is_calls_that_the_parser_finds(
    tokenizer: PreTrainedTokenizerBase, form: ToolForm, is_parallel: bool
) -> None:
    dialect, dice = ToolDialect(tokenizer), random.Random(5)
    end = tokenizer.eos_token_id
    names, most = set(), 0
    for held in Forms(tokenizer, frozenset({end})).make_now(dialect.grammar(TOOLS, is_parallel), 12, "tools"):
        tokens: list[int] = []
        while len(tokens) < 2_000:
            bits = int.from_bytes(held.allowed(), "little")
            token = dice.choice([token for token in range(len(tokenizer)) if bits >> token & 1])
            if token == end or (tokens.append(token) or held.accept(token)):
                break
        parser = dialect.parser(is_held=True)
        text = Vocabulary(tokenizer).decode_keeping(dialect.kept)(tokens)
        fed, rest = parser.feed(text), parser.finish()
        calls = fed.calls + rest.calls
        assert fed.text + rest.text == ""
        assert calls
        for call in calls:
            arguments = json.loads(call.arguments)
            assert sorted(arguments) == {"go": [], "add": ["a", "b"]}[call.name]
        names |= {call.name for call in calls}
        most = max(most, len(calls))
    assert names == {"add", "go"}
    assert (most > 1) == (is_parallel and form is not LLAMA)


def test_a_named_tool_is_the_only_one_that_can_come() -> None:
    tokenizer = load_tokenizer(TINY)
    held, = Forms(tokenizer, frozenset({tokenizer.eos_token_id})).make_now(
        ToolDialect(tokenizer).grammar(TOOLS[1:], False), 1, "tools"
    )
    for token in tokenizer.encode('<tool_call>\n{"name": "'):
        held.accept(token)
    bits = int.from_bytes(held.allowed(), "little")
    spelled = {tokenizer.decode([token]) for token in range(len(tokenizer)) if bits >> token & 1}
    assert spelled <= {"g", "go", 'go"', 'go",'}
    assert spelled


def test_a_tokenizers_own_template_reads_what_the_model_writes_freely_and_no_forced_calls() -> None:
    tokenizer = byte_tokenizer("no tools here", "<call>")
    tokenizer.response_template = {"start_anchor": "assistant", "fields": {
        "tool_calls": {"open": "<call>", "close": "</call>", "content": "json", "repeats": True}, "content": {"content": "text"},
    }}
    dialect = ToolDialect(tokenizer)
    own, forced = '<call>{"name": "go"}</call>', '<tool_call>\n{"name": "go", "arguments": {}}\n</tool_call>'
    assert dialect.parser(is_held=False).feed(own).calls == dialect.parser(is_held=True).feed(forced).calls != []
    assert dialect.kept == {tokenizer.convert_tokens_to_ids("<call>")}
