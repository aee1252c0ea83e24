"""Asks for tokens: messages in, completion out, over the OpenAI protocol. Who answers (ours, vLLM, OpenAI) is not known here.

`Completer` is what evals hold, `Judge` what graders do; `to_completion`, `to_vectors` and `failure` read an answer in OpenAI's
shape, whoever carried it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunesmith.errors import EngineFailed, InvalidRequest, NotFound, TunesmithError
from tunesmith.types import Message


@dataclass(frozen=True)
class Completion:
    """One answer. `message` is the assistant's, `finish_reason` stop, length or tool_calls."""

    message: Message
    finish_reason: str
    num_prompt_tokens: int
    num_completion_tokens: int
    num_cached_tokens: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Completer(Protocol):
    async def complete(self, model: str, messages: list[Message], **sampling: Any) -> Completion:
        """One completion of a conversation. Raises NotFound for an unknown model, EngineFailed when nobody answers."""
        ...


def to_completion(body: bytes) -> Completion:
    """The first choice of a chat completion in OpenAI's shape. Raises EngineFailed for anything else."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        usage = answer.get("usage") or {}
        return Completion(
            message=choice["message"],
            finish_reason=choice["finish_reason"],
            num_prompt_tokens=usage.get("prompt_tokens", 0),
            num_completion_tokens=usage.get("completion_tokens", 0),
            num_cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            token_ids=choice.get("token_ids") or [],
            logprobs=[token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or []],
        )
    except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        message = f"The answer is no chat completion: {body[:200]!r}."
        raise EngineFailed(message, hint="Is it an OpenAI-compatible server?") from error


def to_vectors(body: bytes) -> list[list[float]]:
    """Raises EngineFailed for what is no list of embeddings."""
    try:
        return [[float(value) for value in each["embedding"]] for each in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError) as error:
        message = f"The answer holds no embeddings: {body[:200]!r}."
        raise EngineFailed(message, hint="Is it an OpenAI-compatible server?") from error


def failure(status: int, body: bytes) -> TunesmithError:
    """The error that a server answered with: its message and code, as one of ours."""
    try:
        error = json.loads(body)["error"]
        message, code, param = str(error["message"]), error.get("code"), error.get("param")
    except (json.JSONDecodeError, KeyError, TypeError):
        message, code, param = body[:300].decode(errors="replace") or f"HTTP status {status}", None, None
    kind: type[TunesmithError] = {404: NotFound}.get(status, InvalidRequest if status < 500 else EngineFailed)
    return kind(message, code=code, param=param)


class Judge(Completer, Protocol):
    """What graders ask: a Completer that also has embeddings."""

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """One vector per text, by whatever model is configured for it. Raises InvalidRequest, EngineFailed."""
        ...


# -- patience: how background work asks --------------------------------------------------------------------------------------

PRIORITY_HEADER = "x-tunesmith-priority"
BACKGROUND = {PRIORITY_HEADER: "batch"}
"""Headers of a question that waits while anything interactive does."""
AGAIN = frozenset({429, 503})
"""Not now: ask again when told."""
BROKEN = frozenset({500, 502, 504})
"""The engine broke under the question: ask some times, MAX_BROKEN at most."""
MAX_BROKEN = 4
LONGEST_SECONDS = 3600.0
"""For one answer, waiting included: a question that an engine never ends must not hold the others."""


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds after which an answer says to ask again; 0 when it does not say."""
    told = headers.get("retry-after", "")
    return float(told) if told.replace(".", "", 1).isdigit() else 0.0
