"""Answers to chats in OpenAI's shape, and what all answers share. Pure functions and small collectors; no HTTP, no torch."""

import time
from dataclasses import dataclass, field
from typing import Any

from tunesmith.engine.requests import ChatRequest, NamedTool
from tunesmith.engine.sequence import Output, TokenLogprob
from tunesmith.engine.tools import ToolCall
from tunesmith.engine.vocabulary import Vocabulary
from tunesmith.errors import TunesmithError
from tunesmith.types import new_id

Json = dict[str, Any]


def error_body(error: TunesmithError) -> Json:
    """OpenAI's error shape: all four keys, always."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def usage(num_prompt_tokens: int, num_completion_tokens: int, num_cached: int) -> Json:
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_completion_tokens,
        "total_tokens": num_prompt_tokens + num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": num_cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


@dataclass
class Collected:
    """All outputs of one sequence, joined."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str = "stop"
    num_cached_prompt: int = 0
    embedding: list[float] | None = None

    def add(self, output: Output) -> None:
        self.text += output.text
        self.tokens += output.tokens
        self.logprobs += output.logprobs
        if output.finish_reason is not None:
            self.finish_reason = output.finish_reason
            self.num_cached_prompt = output.num_cached_prompt
            self.embedding = output.embedding


class Tally:
    """Counts the tokens of an answer. A prompt counts once for all its choices; of it, what none of them had to compute."""

    def __init__(self, prompts: list[list[int]], num_choices: int):
        """Choice i continues prompt i // num_choices."""
        self._num_prompt_tokens = sum(len(prompt) for prompt in prompts)
        self._num_choices = num_choices
        self._num_completion_tokens = 0
        self._cached: dict[int, int] = {}

    def add(self, index: int, num_tokens: int, num_cached_prompt: int | None) -> None:
        """`num_cached_prompt` is known when a choice has finished."""
        self._num_completion_tokens += num_tokens
        if num_cached_prompt is not None:
            prompt = index // self._num_choices
            self._cached[prompt] = min(num_cached_prompt, self._cached.get(prompt, num_cached_prompt))

    def body(self) -> Json:
        return usage(self._num_prompt_tokens, self._num_completion_tokens, sum(self._cached.values()))


def tallied(prompts: list[list[int]], num_choices: int, choices: list[Collected]) -> Json:
    tally = Tally(prompts, num_choices)
    for index, choice in enumerate(choices):
        tally.add(index, len(choice.tokens), choice.num_cached_prompt)
    return tally.body()


def head(kind: str, prefix: str, model: str, fingerprint: str) -> Json:
    """What all chunks of one answer share."""
    return {"id": new_id(prefix), "object": kind, "created": int(time.time()), "model": model, "system_fingerprint": fingerprint}


def chat_answer(
    request: ChatRequest, vocabulary: Vocabulary, fingerprint: str, prompt: list[int], choices: list[Collected]
) -> Json:
    answer = head("chat.completion", "chatcmpl", request.model, fingerprint) | {
        "choices": [chat_choice(request, vocabulary, index, choice) for index, choice in enumerate(choices)],
        "usage": tallied([prompt], request.n, choices),
    }
    return answer | ({"prompt_token_ids": prompt} if request.return_token_ids else {})


def chat_choice(request: ChatRequest, vocabulary: Vocabulary, index: int, choice: Collected) -> Json:
    text, calls = choice.text, list[ToolCall]()
    if request.used_tools:
        parser = vocabulary.dialect.parser(is_held=request.holds_calls)
        fed, rest = parser.feed(choice.text), parser.finish()
        text, calls = fed.text + rest.text, (fed.calls + rest.calls)[: max_calls(request)]
    message: Json = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    if calls:
        message["tool_calls"] = [call_body(call) for call in calls]
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(vocabulary, choice.logprobs) if request.logprobs else None,
        "finish_reason": chat_reason(request, bool(calls), choice.finish_reason),
    } | ({"token_ids": choice.tokens} if request.return_token_ids else {})


def max_calls(request: ChatRequest) -> int | None:
    """How many calls the client takes; None is no limit."""
    return None if request.parallel_tool_calls else 1


def chat_reason(request: ChatRequest, has_called: bool, reason: str) -> str:
    """As OpenAI has it: an answer that calls ends with `tool_calls`, unless one named tool was forced: then with `stop`."""
    return "tool_calls" if has_called and reason == "stop" and not isinstance(request.tool_choice, NamedTool) else reason


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
        self._tools = vocabulary.dialect.parser(is_held=request.holds_calls) if request.used_tools else None
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
        most = max_calls(self._request)
        for call in calls if most is None else calls[: most - self._num_calls]:
            made.append(self._chunk({"tool_calls": [{"index": self._num_calls, **call_body(call)}]}))
            self._num_calls += 1
        if output.finish_reason is not None:
            reason = chat_reason(self._request, self._num_calls > 0, output.finish_reason)
            made.append(self._chunk({}, reason=reason))
        return made

    def _chunk(self, delta: Json, output: Output | None = None, reason: str | None = None) -> Json:
        logprobs = chat_logprobs(self._vocabulary, output.logprobs) if output is not None and output.logprobs else None
        choice = {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        if output is not None and self._request.return_token_ids:
            choice["token_ids"] = output.tokens
        return self._head | {"choices": [choice]}
