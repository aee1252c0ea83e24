"""What a client may ask the engine for, in OpenAI's shapes. What is not computed here is refused by name, never ignored.

No torch, no HTTP: a JSON object in, a checked request out, or InvalidRequest with the field as `param`.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunesmith.engine.sequence import Sampling
from tunesmith.errors import ContextTooLong, InvalidRequest
from tunesmith.types import Message

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Fields of OpenAI's that are not computed here -> the values that ask for nothing; any other value is refused."""

LABELS = frozenset(
    {"metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "user"}
)
"""Fields that name the request or its caller; no answer depends on them."""

Text = Annotated[str, Field(min_length=1, max_length=500)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamOptions(Part):
    include_usage: bool = False
    include_obfuscation: bool = False
    """Asks for padding against eavesdroppers; on loopback there is none, so it changes nothing."""


class Request(Part):
    """Fields of both endpoints."""

    model: str
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    n: Annotated[int, Field(ge=1, le=128)] = 1
    seed: int | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    return_token_ids: bool = False
    """vLLM's field: the choice gets `token_ids`, the answer `prompt_token_ids`."""

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatRequest(Request):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Literal["none", "auto"] = "auto"
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0

    @property
    def used_tools(self) -> list[dict[str, Any]]:
        return self.tools if self.tool_choice == "auto" else []

    def sampling(self, num_prompt_tokens: int, max_positions: int, number: int) -> Sampling:
        """Of choice `number`. Raises ContextTooLong."""
        asked = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        num_logprobs = self.top_logprobs if self.logprobs else None
        return _sampling(self, asked, num_prompt_tokens, max_positions, number, num_logprobs, field="messages")


class CompletionRequest(Request):
    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """One entry for each prompt, as text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [[int(str(token)) for token in self.prompt]]
        return [item for item in self.prompt if not isinstance(item, int)]

    def sampling(self, num_prompt_tokens: int, max_positions: int, number: int) -> Sampling:
        """Of choice `number` of one prompt. Raises ContextTooLong."""
        return _sampling(self, self.max_tokens, num_prompt_tokens, max_positions, number, self.logprobs, field="prompt")


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
        seed=None if request.seed is None else request.seed + number,
        stop=request.stops,
        num_logprobs=num_logprobs,
        prompt_logprobs=isinstance(request, CompletionRequest) and request.echo and num_logprobs is not None,
    )


R = TypeVar("R", bound=Request)


def parse(kind: type[R], body: Any) -> R:
    """The request in a JSON value; null is the same as absent. Raises InvalidRequest."""
    if not isinstance(body, dict):
        raise InvalidRequest("The body is not a JSON object.", hint="Send an object with `model`.")
    given = {name: value for name, value in body.items() if value is not None and name not in LABELS}
    for name, neutral in NEUTRAL.items():
        if name in given and given.pop(name) not in neutral:
            raise InvalidRequest(f"{name} is not supported here.", hint="Leave it out.", param=name, code="unsupported_parameter")
    try:
        request = kind.model_validate(given)
    except ValidationError as error:
        raise _invalid(error) from error
    if isinstance(request, ChatRequest) and request.top_logprobs and not request.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs.", hint="Set logprobs to true.", param="top_logprobs")
    if isinstance(request, CompletionRequest) and request.echo and request.stream:
        hint = "Leave one of them out."
        raise InvalidRequest("echo is not supported with stream.", hint=hint, param="echo", code="unsupported_parameter")
    return request


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors()[0]
    whole = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        message = f"{whole} is not a field of this request."
        return InvalidRequest(message, hint="Leave it out.", param=whole, code="unknown_parameter")
    field = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "missing":
        return InvalidRequest(f"{field} is missing.", hint="See docs/engine.md.", param=field, code="missing_required_parameter")
    return InvalidRequest(f"{field}: {first['msg']}.", hint="See docs/engine.md.", param=field, code="invalid_value")
