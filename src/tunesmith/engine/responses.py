"""Answers in OpenAI's shapes, from what the sequences gave. Pure functions and small collectors; no HTTP, no torch."""

import time
from dataclasses import dataclass, field
from typing import Any

from tunesmith.engine.requests import ChatRequest, CompletionRequest
from tunesmith.engine.sequence import Output, TokenLogprob
from tunesmith.engine.tools import ToolCall, ToolText
from tunesmith.engine.vocabulary import Vocabulary
from tunesmith.errors import TunesmithError
from tunesmith.types import new_id

Json = dict[str, Any]


def error_body(error: TunesmithError) -> Json:
    """OpenAI's error shape: all four keys, always."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def usage(num_prompt_tokens: int, num_completion_tokens: int) -> Json:
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_completion_tokens,
        "total_tokens": num_prompt_tokens + num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


@dataclass
class Collected:
    """All outputs of one sequence, joined."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str = "stop"

    def add(self, output: Output) -> None:
        self.text += output.text
        self.tokens += output.tokens
        self.logprobs += output.logprobs
        if output.finish_reason is not None:
            self.finish_reason = output.finish_reason


# -- chat ---------------------------------------------------------------------------------------------------------------


def head(kind: str, prefix: str, model: str) -> Json:
    """What all chunks of one answer share."""
    return {"id": new_id(prefix), "object": kind, "created": int(time.time()), "model": model, "system_fingerprint": None}


def chat_answer(request: ChatRequest, vocabulary: Vocabulary, prompt: list[int], choices: list[Collected]) -> Json:
    num_completion = sum(len(choice.tokens) for choice in choices)
    answer = head("chat.completion", "chatcmpl", request.model) | {
        "choices": [chat_choice(request, vocabulary, index, choice) for index, choice in enumerate(choices)],
        "usage": usage(len(prompt), num_completion),
    }
    return answer | ({"prompt_token_ids": prompt} if request.return_token_ids else {})


def chat_choice(request: ChatRequest, vocabulary: Vocabulary, index: int, choice: Collected) -> Json:
    text, calls = choice.text, list[ToolCall]()
    if request.used_tools:
        parser = ToolText()
        fed, rest = parser.feed(choice.text), parser.finish()
        text, calls = fed.text + rest.text, fed.calls + rest.calls
    message: Json = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    if calls:
        message["tool_calls"] = [call_body(call) for call in calls]
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(vocabulary, choice.logprobs) if request.logprobs else None,
        "finish_reason": "tool_calls" if calls and choice.finish_reason == "stop" else choice.finish_reason,
    } | ({"token_ids": choice.tokens} if request.return_token_ids else {})


def call_body(call: ToolCall) -> Json:
    return {"id": new_id("call"), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def chat_logprobs(vocabulary: Vocabulary, logprobs: list[TokenLogprob]) -> Json:
    def entry(token: int, logprob: float) -> Json:
        return {"token": vocabulary.text_of(token), "logprob": logprob, "bytes": list(vocabulary.bytes_of(token))}

    return {
        "content": [
            entry(item.token, item.logprob or 0.0) | {"top_logprobs": [entry(token, value) for token, value in item.top]}
            for item in logprobs
        ],
        "refusal": None,
    }


class ChatStream:
    """The chunks of one choice."""

    def __init__(self, request: ChatRequest, vocabulary: Vocabulary, first: Json, index: int):
        self._request = request
        self._vocabulary = vocabulary
        self._head = first
        self._index = index
        self._tools = ToolText() if request.used_tools else None
        self._num_calls = 0

    def begin(self) -> Json:
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def chunks(self, output: Output) -> list[Json]:
        """The chunks for one output; the last one of a choice has a finish reason and an empty delta."""
        text, calls = output.text, list[ToolCall]()
        if self._tools is not None:
            fed = self._tools.feed(output.text)
            text, calls = fed.text, fed.calls
            if output.finish_reason is not None:
                rest = self._tools.finish()
                text, calls = text + rest.text, calls + rest.calls
        made = []
        if text or output.logprobs or (self._request.return_token_ids and output.tokens):
            made.append(self._chunk({"content": text} if text else {}, output))
        for call in calls:
            made.append(self._chunk({"tool_calls": [{"index": self._num_calls, **call_body(call)}]}))
            self._num_calls += 1
        if output.finish_reason is not None:
            reason = "tool_calls" if self._num_calls and output.finish_reason == "stop" else output.finish_reason
            made.append(self._chunk({}, reason=reason))
        return made

    def _chunk(self, delta: Json, output: Output | None = None, reason: str | None = None) -> Json:
        logprobs = chat_logprobs(self._vocabulary, output.logprobs) if output is not None and output.logprobs else None
        choice = {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        if output is not None and self._request.return_token_ids:
            choice["token_ids"] = output.tokens
        return self._head | {"choices": [choice]}


# -- completions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """One prompt of a completion request; `text` as the client gave it, or as its tokens spell."""

    text: str
    tokens: list[int]


def completion_answer(
    request: CompletionRequest, vocabulary: Vocabulary, prompts: list[Prompt], choices: list[tuple[Prompt, Collected]]
) -> Json:
    num_completion = sum(len(choice.tokens) for _, choice in choices)
    return head("text_completion", "cmpl", request.model) | {
        "choices": [completion_choice(request, vocabulary, n, prompt, choice) for n, (prompt, choice) in enumerate(choices)],
        "usage": usage(sum(len(prompt.tokens) for prompt in prompts), num_completion),
    }


def completion_choice(request: CompletionRequest, vocabulary: Vocabulary, index: int, prompt: Prompt, choice: Collected) -> Json:
    body: Json = {
        "index": index,
        "text": (prompt.text if request.echo else "") + choice.text,
        "logprobs": None if request.logprobs is None else completion_logprobs(vocabulary, choice.logprobs),
        "finish_reason": choice.finish_reason,
    }
    return body | ({"token_ids": choice.tokens, "prompt_token_ids": prompt.tokens} if request.return_token_ids else {})


def completion_logprobs(vocabulary: Vocabulary, logprobs: list[TokenLogprob], offset: int = 0) -> Json:
    """The older endpoint's shape: parallel lists. The first token of an echoed prompt has no log-probability."""
    offsets = []
    for item in logprobs:
        offsets.append(offset)
        offset += len(vocabulary.text_of(item.token))
    return {
        "tokens": [vocabulary.text_of(item.token) for item in logprobs],
        "token_logprobs": [item.logprob for item in logprobs],
        "top_logprobs": [
            None if item.logprob is None else {vocabulary.text_of(token): value for token, value in item.top} for item in logprobs
        ],
        "text_offset": offsets,
    }


class CompletionStream:
    """The chunks of one choice of a streamed completion."""

    def __init__(self, request: CompletionRequest, vocabulary: Vocabulary, first: Json, index: int):
        self._request = request
        self._vocabulary = vocabulary
        self._head = first
        self._index = index
        self._offset = 0

    def chunks(self, output: Output) -> list[Json]:
        logprobs = None
        if self._request.logprobs is not None:
            logprobs = completion_logprobs(self._vocabulary, output.logprobs, self._offset)
            self._offset += len(output.text)
        choice = {"index": self._index, "text": output.text, "logprobs": logprobs, "finish_reason": output.finish_reason}
        if self._request.return_token_ids:
            choice["token_ids"] = output.tokens
        return [self._head | {"choices": [choice]}]
