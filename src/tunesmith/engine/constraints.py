"""What a completion must look like, held token by token: JSON schemas, regular expressions, grammars, lists of choices.

llguidance does the parsing; here it is asked with our defaults, and its errors become ours. A form is compiled when the request
comes, in a thread of its own; llguidance bounds the work of compiling (seconds at worst) and of each mask (milliseconds). Knows
no requests, no HTTP, no torch.
"""

import asyncio
import functools
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Any, cast

from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from transformers import PreTrainedTokenizerBase

from tunesmith.errors import InvalidRequest

MAX_CHARS = 256 * 1024
"""Longest grammar. A schema of this length with thousands of properties compiles in a few tenths of a second."""
MAX_REASON = 300
"""Characters of llguidance's reason that a client is told."""

COMPACT: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
"""JSON without blanks: a model that was not trained on JSON would write blanks without end."""
SPACED: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as chat templates write tool calls, so that a forced call reads as a trained one."""

ANY_OBJECT: dict[str, Any] = {"type": "object"}


def json_grammar(schema: Any) -> str:
    """Of JSON that a schema, or its text, allows. Raises ValueError for what is no schema."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return str(LLMatcher.grammar_from_json_schema(text, defaults=cast(Any, COMPACT)))


def regex_grammar(pattern: str) -> str:
    """Of texts that match as a whole. Rust's syntax: no look-around, no back references."""
    return str(LLMatcher.grammar_from_regex(pattern))


def lark_grammar(text: str) -> str:
    """Of a grammar in llguidance's Lark; its first rule is `start`."""
    return str(LLMatcher.grammar_from_lark(text))


def choice_grammar(choices: Iterable[str]) -> str:
    return lark_grammar("start: " + " | ".join(literal(choice) for choice in choices))


def literal(text: str) -> str:
    """A text as a Lark string."""
    return json.dumps(text, ensure_ascii=False)


def json_term(schema: dict[str, Any], style: dict[str, Any]) -> str:
    """A term of a Lark grammar: JSON that a schema allows, COMPACT or SPACED."""
    return "%json " + json.dumps({**schema, "x-guidance": style})


class Form:
    """One completion's place in its grammar: a `sequence.Constraint`."""

    def __init__(self, matcher: LLMatcher, param: str):
        self._matcher = matcher
        self._param = param

    def allowed(self) -> bytes:
        bits = bytes(self._matcher.compute_bitmask())
        if self._matcher.is_error():
            raise _refused(self._matcher, self._param)
        return bits

    def accept(self, token: int) -> bool:
        self._matcher.consume_token(token)
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()


class Forms:
    """Compiles grammars for one tokenizer. The first one waits for the tokenizer's tables (0.1 to 0.5 s)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[int]):
        self._tokenizer = tokenizer
        self._end_tokens = sorted(end_tokens)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="forms")
        self._compiled = functools.lru_cache(maxsize=64)(self._compile)

    async def make(self, grammar: str, number: int, param: str) -> list[Form]:
        """`number` fresh forms of a grammar. Raises InvalidRequest with llguidance's reason, for the field `param`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.make_now, grammar, number, param)

    def make_now(self, grammar: str, number: int, param: str) -> list[Form]:
        if len(grammar) > MAX_CHARS:
            message = f"{param} is longer than {MAX_CHARS} characters."
            raise InvalidRequest(message, hint="Ask for a simpler form.", param=param, code="invalid_value")
        matcher = self._compiled(grammar)
        if matcher.is_error():
            raise _refused(matcher, param)
        return [Form(matcher.deep_copy(), param) for _ in range(number)]

    def _compile(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self._table, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))
        if not matcher.is_error():
            # A form that nothing can satisfy shows with its first mask only.
            matcher.compute_bitmask()
        return matcher

    @functools.cached_property
    def _table(self) -> LLTokenizer:
        """The tokenizer's tokens as bytes; ids beyond its vocabulary are never allowed."""
        if not self._tokenizer.is_fast:
            message = "The base's tokenizer cannot be read for structured output."
            raise InvalidRequest(message, hint="Give the base a tokenizer.json.", code="unsupported_parameter")
        backend = copy(self._tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.no_truncation()
        return LLTokenizer(backend.to_str(), n_vocab=len(self._tokenizer), eos_token=self._end_tokens)


def _refused(matcher: LLMatcher, param: str) -> InvalidRequest:
    reason = " ".join(matcher.get_error().split("<state>")[0].split())[:MAX_REASON]
    return InvalidRequest(f"{param} cannot be held: {reason}.", hint="See docs/engine.md.", param=param, code="invalid_value")
