"""How each family of models writes tool calls: what to look for in its text, and the grammar that forces them. No torch."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from tunesmith.engine.constraints import COMPACT, SPACED, json_term, literal
from tunesmith.engine.tools import ToolText

Json = dict[str, Any]
ALTERNATIVE = "\n    | "
BREAK = literal("\n")


class ToolForm(NamedTuple):
    """How a family writes calls."""

    open_pattern: str
    close: str | None
    """None: a call goes on to the end of the answer."""
    grammar: Callable[[list[Json], bool, Callable[[str], str]], str]
    """(tools, may there be several, a marker as a grammar's term) -> a Lark grammar of nothing but calls."""
    markers: tuple[str, ...] = ()
    """Special tokens that belong to the form."""

    @property
    def response_template(self) -> Json:
        ends = {} if self.close is None else {"close": self.close}
        return {
            "start_anchor": "assistant",
            "fields": {
                "tool_calls": {"open_pattern": self.open_pattern, **ends, "content": "text", "repeats": True},
                "content": {"content": "text"},
            },
        }


def parameters(tool: Json) -> Json:
    """The schema of a tool's arguments; a tool without one takes none."""
    return {"type": "object", **(tool["function"].get("parameters") or {"properties": {}, "additionalProperties": False})}


def one_of(tools: list[Json], key: str) -> str:
    """Terms of a JSON call of one of the tools, with its arguments under `key`."""
    terms = []
    for tool in tools:
        begin = '{"name": ' + literal(tool["function"]["name"]) + f', "{key}": '
        terms.append(f"{literal(begin)} {json_term(parameters(tool), SPACED)} {literal('}')}")
    return ALTERNATIVE.join(terms)


def hermes_grammar(tools: list[Json], is_parallel: bool, marker: Callable[[str], str]) -> str:
    several = f" ({BREAK} call)*" if is_parallel else ""
    begin, end = marker("<tool_call>"), marker("</tool_call>")
    return f"start: call{several}\ncall: {begin} {BREAK} body {BREAK} {end}\nbody: {one_of(tools, 'arguments')}\n"


def llama_grammar(tools: list[Json], is_parallel: bool, marker: Callable[[str], str]) -> str:
    """One call: these models were not trained on several."""
    return f"start: {one_of(tools, 'parameters')}\n"


def mistral_list_grammar(tools: list[Json], is_parallel: bool, marker: Callable[[str], str]) -> str:
    several = ' (", " call)*' if is_parallel else ""
    return f"start: {marker('[TOOL_CALLS]')} {literal('[')} call{several} {literal(']')}\ncall: {one_of(tools, 'arguments')}\n"


def mistral_grammar(tools: list[Json], is_parallel: bool, marker: Callable[[str], str]) -> str:
    arguments = marker("[ARGS]")
    terms = [f"{literal(tool['function']['name'])} {arguments} {json_term(parameters(tool), SPACED)}" for tool in tools]
    several = "+" if is_parallel else ""
    return f"start: call{several}\ncall: {marker('[TOOL_CALLS]')} named\nnamed: {ALTERNATIVE.join(terms)}\n"


HERMES = ToolForm(r"\s*<tool_call>", "</tool_call>", hermes_grammar)
LLAMA = ToolForm(r"\A\s*(?=\{)|\s*<\|python_tag\|>", None, llama_grammar, ("<|python_tag|>",))
MISTRAL_LIST = ToolForm(r"\s*\[TOOL_CALLS\]", None, mistral_list_grammar, ("[TOOL_CALLS]",))
MISTRAL = ToolForm(r"\s*\[TOOL_CALLS\]", None, mistral_grammar, ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"))

FORMS: tuple[tuple[str, ToolForm], ...] = (
    ("[ARGS]", MISTRAL),
    ("[TOOL_CALLS]", MISTRAL_LIST),
    ("<tool_call>", HERMES),
    ("<|python_tag|>", LLAMA),
    ('"parameters": ', LLAMA),
)
"""What a chat template spells -> the form; the first that is found. Without any, Hermes' form, as our own templates ask."""


class ToolDialect:
    """How one base writes calls."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        spelled = str(tokenizer.get_chat_template(tools=[{}]))
        self._form = next((form for mark, form in FORMS if mark in spelled), HERMES)
        self._own = tokenizer.response_template
        added = tokenizer.added_tokens_decoder.items()
        self._added = {token.content: at for at, token in added}
        told = json.dumps([self._own, self._form.markers], ensure_ascii=False)
        self.kept: frozenset[int] = frozenset(at for at, token in added if token.special and token.content in told)
        """Special tokens that tell where a call is: they are kept in the text."""

    def parser(self, *, is_held: bool) -> ToolText:
        """For an answer that a `grammar` held; or for free text, in which the tokenizer's own template counts."""
        return ToolText(self._form.response_template if is_held or self._own is None else self._own)

    def grammar(self, tools: list[Json], is_parallel: bool, schema: Json | None = None) -> str:
        """Of an answer that is nothing but calls of these tools; or, with a `schema`, such calls or JSON that it allows."""
        calls = self._form.grammar(tools, is_parallel, self._marker)
        if schema is None:
            return calls
        return f"start: calls | answer\nanswer: {json_term(schema, COMPACT)}\n" + calls.replace("start:", "calls:", 1)

    def _marker(self, text: str) -> str:
        """A token of its own where the tokenizer has one: its text, spelled by others, would be another prompt next time."""
        return f"<[{self._added[text]}]>" if text in self._added else literal(text)
