"""What a client may ask the engine for, in OpenAI's and vLLM's shapes, and how a request wants its tokens. No torch, no HTTP."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunesmith.data.messages import to_tools
from tunesmith.engine.formats import ResponseFormat, StructuredOutputs
from tunesmith.engine.sequence import Priority, Sampling
from tunesmith.errors import ContextTooLong
from tunesmith.types import Message

DAY = 86_400.0

Text = Annotated[str, Field(min_length=1, max_length=500)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Prompts = str | list[int] | list[str] | list[list[int]]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamOptions(Part):
    include_usage: bool = False
    include_obfuscation: bool = False
    """Asks for padding against eavesdroppers; on loopback there is none, so it changes nothing."""


class Order(Part):
    """What all that is computed can ask for: for whom, how soon."""

    model: str
    priority: Priority = "interactive"
    """`batch` waits while anything interactive does."""
    deadline_seconds: Annotated[float, Field(gt=0, le=DAY)] | None = None
    """What is not done by then ends with an error."""
    cache_salt: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """vLLM's field. Only requests with the same salt share what was computed of their prompts."""


class Request(Order):
    """Fields of both endpoints that make text."""

    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    logit_bias: Annotated[
        dict[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)
    ] = {}
    n: Annotated[int, Field(ge=1, le=128)] = 1
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] = []
    min_tokens: Annotated[int, Field(ge=0)] = 0
    ignore_eos: bool = False
    response_format: ResponseFormat = ResponseFormat()
    structured_outputs: StructuredOutputs | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    return_token_ids: bool = False
    """vLLM's field: the choice gets `token_ids`, the answer `prompt_token_ids`."""

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def form(self) -> tuple[str, str] | None:
        """The grammar that the answer must follow, and the field that asks for it. Raises InvalidRequest."""
        if self.structured_outputs is not None:
            return self.structured_outputs.grammar(), "structured_outputs"
        grammar = self.response_format.grammar()
        return None if grammar is None else (grammar, "response_format")


class NamedFunction(Part):
    name: str


class NamedTool(Part):
    type: Literal["function"]
    function: NamedFunction


class ChatRequest(Request):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0

    @property
    def used_tools(self) -> list[dict[str, Any]]:
        """What the prompt tells of."""
        return [] if self.tool_choice == "none" else to_tools(self.tools)

    @property
    def forced_tools(self) -> list[dict[str, Any]]:
        """Those of which the answer must be a call; empty when it need not be one."""
        if isinstance(self.tool_choice, NamedTool):
            return [tool for tool in self.used_tools if tool["function"]["name"] == self.tool_choice.function.name]
        return self.used_tools if self.tool_choice == "required" else []

    @property
    def holds_calls(self) -> bool:
        """Does a grammar tell how a call is written, and not the model?"""
        return bool(self.used_tools) and (self.tool_choice != "auto" or self.response_format.type != "text")

    def sampling(self, num_prompt_tokens: int, max_positions: int, number: int) -> Sampling:
        """Of choice `number`. Raises ContextTooLong."""
        asked = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        num_logprobs = self.top_logprobs if self.logprobs else None
        return _sampling(self, asked, num_prompt_tokens, max_positions, number, num_logprobs, field="messages")


class CompletionRequest(Request):
    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        return each_prompt(self.prompt)

    def sampling(self, num_prompt_tokens: int, max_positions: int, number: int) -> Sampling:
        """Of choice `number` of one prompt. Raises ContextTooLong."""
        return _sampling(self, self.max_tokens, num_prompt_tokens, max_positions, number, self.logprobs, field="prompt")


class EmbeddingRequest(Order):
    input: Prompts
    encoding_format: Literal["float", "base64"] = "float"


class TokenizeRequest(Part):
    """vLLM's shape: a text or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] = []
    add_special_tokens: bool = True
    """The start token before a text, if the tokenizer has one; a conversation is as its template writes it."""
    return_token_strs: bool = False


class DetokenizeRequest(Part):
    model: str | None = None
    tokens: list[int]


def each_prompt(prompt: Prompts) -> list[str | list[int]]:
    """One entry for each prompt, as text or token ids."""
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [[int(str(token)) for token in prompt]]
    return [item for item in prompt if not isinstance(item, int)]


def _sampling(
    request: Request, asked: int | None, num_prompt_tokens: int, max_positions: int, number: int, num_logprobs: int | None,
    *, field: str,
) -> Sampling:
    room = max_positions - num_prompt_tokens
    if room < (1 if asked is None else asked):
        wanted = "" if asked is None else f" and {asked} in the completion"
        raise ContextTooLong(
            f"This model has {max_positions} positions; you asked for {num_prompt_tokens} tokens in the {field}{wanted}.",
            hint="Shorten the prompt or lower max_tokens.", param=field,
        )
    return Sampling(
        max_tokens=room if asked is None else asked,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=max(0, request.top_k),
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=tuple(request.logit_bias.items()),
        min_tokens=request.min_tokens,
        seed=None if request.seed is None else request.seed + number,
        stop=request.stops,
        num_logprobs=num_logprobs,
        prompt_logprobs=isinstance(request, CompletionRequest) and request.echo and num_logprobs is not None,
    )
