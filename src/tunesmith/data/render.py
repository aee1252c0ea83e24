"""The text that a base's chat template makes of messages. The engine and the trainer both ask here, so both see the same text.

Knows templates and their habits with tool calls; no token ids, no loss mask, no files, no torch.
"""

import functools
import json
import re
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from tunesmith.errors import InvalidData
from tunesmith.types import Message

MARK = "\u2042first answer\u2042"
"""A text that stands for the first message's, to see where a template puts it."""
PROBE_NAME, PROBE_KEY, PROBE_VALUE = "probe_function", "probe_key", "probe value"


def render(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[dict[str, Any]], *, generate: bool = False
) -> str:
    """The template's text for messages in normal form; `generate` opens the assistant's next message. Raises InvalidData."""
    if any(message.get("tool_calls") for message in messages):
        form = _call_form(tokenizer, str(tokenizer.chat_template))
        if form is None:
            raise InvalidData("The base's chat template does not write tool calls.", hint="Take a base that was made for tools.")
        messages = [_in_form(message, *form) for message in messages]
    try:
        return _apply(tokenizer, messages, tools, generate=generate)
    except (TemplateError, TypeError, ValueError) as error:
        raise InvalidData(f"The base's chat template cannot render it: {error}.", hint="Does the base support tools?") from error


def _apply(tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list[dict[str, Any]], *, generate: bool) -> str:
    return str(tokenizer.apply_chat_template(messages, tools=tools or None, add_generation_prompt=generate, tokenize=False))


def _in_form(message: Message, is_json: bool, is_null: bool) -> Message:
    """The message with its calls' arguments as JSON text, and with null for an empty content, as some templates want them."""
    if not message.get("tool_calls"):
        return message
    calls = message["tool_calls"]
    if is_json:
        calls = [
            call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}}
            for call in calls
        ]
    return message | {"tool_calls": calls, "content": None if is_null and not message["content"] else message["content"]}


@functools.lru_cache(maxsize=16)
def _call_form(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[bool, bool] | None:
    """How the template wants tool calls (see `_in_form`), found with a call of our own; None if it loses them in every form.

    Most want arguments as an object; DeepSeek-V3's joins them to text, and others write a call only where the content is null.
    """
    call = {"type": "function", "id": "call00001", "function": {"name": PROBE_NAME, "arguments": {PROBE_KEY: PROBE_VALUE}}}
    asked = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    has_rendered = False
    for form in ((False, False), (True, False), (False, True), (True, True)):
        try:
            text = _apply(tokenizer, [_in_form(message, *form) for message in asked], [], generate=False)
        except (TemplateError, TypeError, ValueError):
            continue
        has_rendered = True
        if all(part in text for part in (PROBE_NAME, PROBE_KEY, PROBE_VALUE)):
            return form
    return None if has_rendered else (False, False)


def opening(tokenizer: PreTrainedTokenizerBase, tools: list[dict[str, Any]]) -> str:
    """What stands before a conversation's first message, if that is the assistant's: many templates cannot render nothing."""
    shown = render(tokenizer, [{"role": "assistant", "content": MARK}], tools)
    return shown[: shown.index(MARK)]


@functools.lru_cache(maxsize=8)
def control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches each special token of the tokenizer, longest first."""
    found = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found |= set(tokenizer.all_special_tokens)
    return re.compile("|".join(re.escape(token) for token in sorted(found, key=len, reverse=True)))


def refuse_control_tokens(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> None:
    """Text that spells a control token would end its message early, and in training teach the model to. Raises InvalidData."""
    for number, message in enumerate(messages, start=1):
        found = control_tokens(tokenizer).search(message["content"])
        if found:
            raise InvalidData(f"Message {number} holds the control token {found.group()}, which no text may.")
