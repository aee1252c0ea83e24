"""Where a conversation's answers stand in the text that a template makes of it: what trains, and what is checked of it.

For a template that only appends, the text up to an answer is a prefix of the text of the whole, so the difference of two renders
is that answer, and a conversation is one text. A template that rewrites earlier messages (Qwen3's drops their thinking) makes one
text of each answer that trains, rendered as it is when that answer is asked for. Knows no token ids and no files.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from tunesmith.data.render import MARK, control_tokens, opening, render
from tunesmith.errors import InvalidData
from tunesmith.types import Message

OPENED = re.compile(r"<think>\s*$")
CLOSED = "\n</think>\n\n"
"""What a template's opening leaves to the model: to end the thinking before it answers."""


class Span(NamedTuple):
    """Characters `start` to `end` of a rendered text: an assistant's answer with the token that ends it."""

    start: int
    end: int
    trains: bool


class Rendered(NamedTuple):
    """One text to train on."""

    text: str
    spans: list[Span]


class Turn(NamedTuple):
    """One assistant message: the conversation's text before it and up to its end, as at the time when it is asked for."""

    number: int
    """Counted from 1."""
    before: str
    after: str


def rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[dict[str, Any]], weights: list[int] | None
) -> list[Rendered]:
    """The texts of a conversation: one, or one for each answer that trains. Raises InvalidData with the reason."""
    trains = [message["role"] == "assistant" and (weights is None or bool(weights[n])) for n, message in enumerate(messages)]
    if not any(trains):
        raise InvalidData("No token of it would be trained.")
    whole = render(tokenizer, messages, tools)
    turns = list(_turns(tokenizer, messages, tools, whole))
    if all(whole.startswith(turn.after) and turn.after.startswith(turn.before) for turn in turns):
        return [Rendered(whole, [_span(tokenizer, turn, messages, trains[turn.number - 1]) for turn in turns])]
    alone = [_opened(turn, messages[turn.number - 1]) for turn in turns if trains[turn.number - 1]]
    return [Rendered(turn.after, [_span(tokenizer, turn, messages, True)]) for turn in alone]


def _turns(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[dict[str, Any]], whole: str
) -> Iterator[Turn]:
    for n, message in enumerate(messages):
        if message["role"] == "assistant":
            before = render(tokenizer, messages[:n], tools, generate=True) if n else opening(tokenizer, tools)
            after = whole if n == len(messages) - 1 else render(tokenizer, messages[: n + 1], tools)
            yield Turn(n + 1, before, after)


def _opened(turn: Turn, message: Message) -> Turn:
    """The turn as the engine sees it: a prompt that opens thinking (DeepSeek-R1's) is answered by ending it first.

    Raises InvalidData where the text of the prompt is no prefix of the text with the answer otherwise.
    """
    if turn.after.startswith(turn.before):
        return turn
    found = OPENED.search(turn.before)
    shared = turn.before[: found.start()] if found else turn.before
    if found is None or not turn.after.startswith(shared):
        raise InvalidData(
            f"The base's chat template writes the prompt of message {turn.number} otherwise when it is answered.",
            hint="Its tokens cannot be told; take a template that only appends.",
        )
    return turn._replace(after=turn.before + _thinking(message) + CLOSED + turn.after[len(shared) :].lstrip("\n"))


def _thinking(message: Message) -> str:
    """What the message thinks before its answer: a field of its own, or in the content, where such a template drops it."""
    inner = message["content"].partition("</think>")
    written = inner[0].partition("<think>")[2] if inner[1] else ""
    return str(message.get("reasoning_content") or written).strip("\n")


def _span(tokenizer: PreTrainedTokenizerBase, turn: Turn, messages: list[Message], trains: bool) -> Span:
    """The answer of a turn, up to the token that ends it; line breaks after that are the template's own. Raises InvalidData."""
    start = len(turn.before)
    ends = [match.end() for match in control_tokens(tokenizer).finditer(turn.after, start)]
    if not ends:
        raise InvalidData(
            f"The base's chat template does not end message {turn.number} with a control token, so the model would not learn to "
            "stop.",
            hint="Use a template that ends assistant messages with the end token.",
        )
    _refuse_losses(turn.after[start : ends[-1]], messages[turn.number - 1], turn.number, trains)
    return Span(start, ends[-1], trains)


def end_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id with which the template ends an answer, so that training teaches it and the engine has to stop there.

    It need not be the tokenizer's end token: Qwen2.5's base models end text with another. None if there is none.
    """
    try:
        text = render(tokenizer, [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}], [])
    except InvalidData:
        return None
    ends = control_tokens(tokenizer).findall(text.partition(MARK)[2])
    return int(tokenizer.convert_tokens_to_ids(ends[-1])) if ends else None


def _refuse_losses(text: str, message: Message, number: int, trains: bool) -> None:
    """Raises InvalidData unless the answer's text has the name and every argument of its tool calls, and its thinking."""
    rest = text.replace(message["content"].strip(), "", 1)
    for call in message.get("tool_calls", ()):
        function = call["function"]
        lost = [part for part in (function["name"], *_leaves(function["arguments"])) if not _is_written(part, rest)]
        if lost:
            raise InvalidData(
                f"The base's chat template loses {lost[0]!r} of the tool call {function['name']} in message {number}.",
                hint="Take a base that was made for tools.",
            )
    if trains and not _is_written(message.get("reasoning_content", ""), text):
        raise InvalidData(
            f"The base's chat template loses the reasoning_content of message {number}.",
            hint="Take a base that was made to reason, or leave the field out.",
        )


def _leaves(value: Any) -> Iterator[Any]:
    """Keys and values of a call's arguments, however deep."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _is_written(value: Any, text: str) -> bool:
    """As text, as JSON, or as Python writes it: templates differ."""
    if isinstance(value, str):
        inner = value.strip()
        return any(form in text for form in (inner, json.dumps(inner, ensure_ascii=False)[1:-1], json.dumps(inner)[1:-1]))
    return json.dumps(value) in text or str(value) in text
