"""Answers of the older endpoint, /v1/completions, in OpenAI's shape. Pure functions; no HTTP, no torch."""

from dataclasses import dataclass

from tunesmith.engine.requests import CompletionRequest
from tunesmith.engine.responses import Collected, Json, head, tallied
from tunesmith.engine.sequence import Output, TokenLogprob
from tunesmith.engine.vocabulary import Vocabulary


@dataclass(frozen=True)
class Prompt:
    """One prompt of a completion request; `text` as the client gave it, or as its tokens spell."""

    text: str
    tokens: list[int]


def completion_answer(
    request: CompletionRequest, vocabulary: Vocabulary, fingerprint: str, prompts: list[Prompt], choices: list[Collected]
) -> Json:
    """`request.n` choices for each prompt."""
    return head("text_completion", "cmpl", request.model, fingerprint) | {
        "choices": [
            completion_choice(request, vocabulary, index, prompts[index // request.n], choice)
            for index, choice in enumerate(choices)
        ],
        "usage": tallied([prompt.tokens for prompt in prompts], request.n, choices),
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
