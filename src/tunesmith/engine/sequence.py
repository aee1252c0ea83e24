"""A sequence: one completion that is being made, with all that is known about it. Knows no torch, no HTTP, no other sequence."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

from tunesmith.engine.text import TextStream
from tunesmith.errors import TunesmithError

FinishReason = Literal["stop", "length", "abort", "error"]
Priority = Literal["interactive", "batch"]

VIRTUAL = -1
"""Stands in `Sequence.tokens` for a position of a soft prompt: its keys and values come from the adapter, not from a token."""


class Constraint(Protocol):
    """What a completion must look like (JSON schema, regex, grammar), token by token."""

    def allowed(self) -> bytes:
        """Bit i of the little-endian int32 words says whether token i may come next; tokens beyond the words may not.

        Raises TunesmithError when it cannot tell: its sequence then fails, alone.
        """
        ...

    def accept(self, token: int) -> bool:
        """Takes the token that came; True when nothing may come after it. Never raises: `allowed` tells what went wrong."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How one request wants its tokens."""

    max_tokens: int
    """Longest completion; 0 computes the prompt only."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """Only the likeliest so many; 0 is no limit."""
    min_p: float = 0.0
    """Only tokens at least this fraction as likely as the likeliest."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens that the completion holds (OpenAI's definition)."""
    frequency_penalty: float = 0.0
    """Subtracted once for each time that the completion holds the token (OpenAI's definition)."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt or completion (Keskar et al. 2019); 1 is off."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token -> what is added to its logit."""
    min_tokens: int = 0
    """No end token before so many tokens have come."""
    seed: int | None = None
    """The same seed draws the same tokens, whatever else is in the batch."""
    stop: tuple[str, ...] = ()
    num_logprobs: int | None = None
    """Alternatives to report for each token; 0 reports the chosen one only, None nothing."""
    prompt_logprobs: bool = False
    """Also report the prompt's own tokens (completions with `echo`)."""

    @cached_property
    def changes_logits(self) -> bool:
        """Is there anything beside a constraint that changes what the model said before a token is drawn?"""
        penalties = (self.presence_penalty, self.frequency_penalty, self.repetition_penalty - 1)
        return any(penalties) or bool(self.logit_bias) or self.min_tokens > 0


class TokenLogprob(NamedTuple):
    """A token with its log-probability under the model, before temperature, and the likeliest alternatives."""

    token: int
    logprob: float | None
    """None for the very first token, which nothing predicts."""
    top: tuple[tuple[int, float], ...] = ()


Sampled = TokenLogprob | TunesmithError
"""A sampled token, or why this row has none."""


@dataclass
class Output:
    """What is new about a sequence since the last output; the last one has a finish reason."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: TunesmithError | None = None
    num_cached_prompt: int = 0
    """Prompt tokens whose keys and values were found in the prefix cache; told with the last output."""
    embedding: list[float] | None = None
    """Of the whole prompt, when it was asked for; told with the last output."""


@dataclass
class Times:
    """When things happened to a sequence, on the core's clock, in seconds; None for what did not happen."""

    arrived: float | None = None
    begun: float | None = None
    """Its first step was computed."""
    first_token: float | None = None
    finished: float | None = None


Sink = Callable[[Output], None]


@dataclass(eq=False)
class Sequence:
    """`tokens` is prompt and completion; the first `num_cached` of them have keys and values in the cache, in row `slot`."""

    id: int
    tokens: list[int]
    sampling: Sampling
    sink: Sink
    text: TextStream
    end_tokens: frozenset[int]
    max_positions: int
    adapter: int | None = None
    """Serial number of the adapter; None is the base."""
    is_streamed: bool = False
    """Deliver text as it comes, not only at the end."""
    cache_root: bytes | None = None
    """Hash over base revision, adapter content hash, media and tenant: only sequences that share it share keys and values.
    None keeps the sequence out of the prefix cache."""
    num_virtual: int = 0
    """The first so many tokens are VIRTUAL: the adapter's soft prompt. Not counted, not reported, not penalised."""
    priority: Priority = "interactive"
    deadline: float | None = None
    """On time.monotonic's clock; a sequence that is not done then ends with an error."""
    constraint: Constraint | None = None
    wants_embedding: bool = False
    """Compute the mean of the last hidden states over the prompt, not a completion."""
    slot: int | None = None
    num_cached: int = 0
    finish_reason: FinishReason | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    num_cached_prompt: int = 0
    """Prompt tokens that the prefix cache gave at the first admission."""
    embedding: list[float] | None = None
    times: Times = field(default_factory=Times)
    num_preemptions: int = 0
    chain: list[bytes] = field(default_factory=list)
    """Names of its first whole blocks, as far as they were asked for."""

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.tokens)
        self.random = random.Random(self.sampling.seed)
        self._pending = Output()

    @property
    def num_completion_tokens(self) -> int:
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_uncached(self) -> int:
        return len(self.tokens) - self.num_cached

    @property
    def is_prefill(self) -> bool:
        """Is more to be computed than the one token that was sampled last?"""
        return self.num_uncached > 1 or self.num_cached == 0

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    def restart(self) -> None:
        """Nothing of it is computed any more; what it has said stands."""
        self.num_cached = 0
        self.prompt_logprobs.clear()
        self.embedding = None

    def append(self, sampled: TokenLogprob) -> None:
        """Takes a sampled token; finishes at an end token, a whole form, a stop string or the limit; delivers what is due."""
        self.tokens.append(sampled.token)
        self._pending.tokens.append(sampled.token)
        if self.sampling.num_logprobs is not None:
            self._pending.logprobs.append(sampled)
        is_end = sampled.token in self.end_tokens
        is_whole = not is_end and self.constraint is not None and self.constraint.accept(sampled.token)
        if not is_end and (self.is_streamed or self.sampling.stop):
            self._pending.text += self.text.push(sampled.token)
        elif not is_end:
            self.text.hold(sampled.token)
        if is_end or is_whole or self.text.is_stopped:
            self.finish("stop")
        elif self.num_completion_tokens >= self.sampling.max_tokens or len(self.tokens) >= self.max_positions:
            self.finish("length")
        elif self.is_streamed and self._pending.text:
            self._deliver()

    def finish(self, reason: FinishReason, error: TunesmithError | None = None) -> None:
        """Ends the sequence, with what is still held back of its text. The first reason stands."""
        if self.is_finished:
            return
        self.finish_reason = reason
        self._pending.text += self.text.finish()
        self._pending.finish_reason = reason
        self._pending.error = error
        self._pending.logprobs = self.prompt_logprobs + self._pending.logprobs
        self._pending.num_cached_prompt = self.num_cached_prompt
        self._pending.embedding = self.embedding
        self._deliver()

    def _deliver(self) -> None:
        pending, self._pending = self._pending, Output()
        self.sink(pending)
