"""A JSON value in, a checked request out. What is not computed here is refused by name, never ignored. No torch, no HTTP."""

from typing import Any, TypeVar

from pydantic import ValidationError

from tunesmith.engine.requests import ChatRequest, CompletionRequest, Part, Request, TokenizeRequest
from tunesmith.errors import InvalidData, InvalidRequest

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "dimensions": (),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": ("none",),
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

R = TypeVar("R", bound=Part)


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
    _check(request)
    return request


def _check(request: Part) -> None:
    """What fields mean for one another."""
    if isinstance(request, Request) and request.structured_outputs is not None and request.response_format.type != "text":
        raise _clash("structured_outputs", "response_format")
    if isinstance(request, ChatRequest):
        _check_chat(request)
    if isinstance(request, CompletionRequest) and request.echo and request.stream:
        raise _clash("echo", "stream")
    if isinstance(request, TokenizeRequest) and (request.prompt is None) == (request.messages is None):
        raise InvalidRequest("Give either prompt or messages.", param="prompt", code="missing_required_parameter")


def _check_chat(request: ChatRequest) -> None:
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs.", hint="Set logprobs to true.", param="top_logprobs")
    try:
        used = request.used_tools
    except InvalidData as error:
        raise InvalidRequest(error.message, hint=error.hint, param="tools", code="invalid_value") from error
    if request.tool_choice not in ("none", "auto") and not request.forced_tools:
        raise InvalidRequest("tool_choice asks for a tool that tools does not hold.", param="tool_choice", code="invalid_value")
    if used and request.structured_outputs is not None:
        raise _clash("structured_outputs", "tools")


def _clash(param: str, other: str) -> InvalidRequest:
    message = f"{param} is not supported with {other}."
    return InvalidRequest(message, hint="Leave one of them out.", param=param, code="unsupported_parameter")


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors()[0]
    whole = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        message = f"{whole} is not a field of this request."
        return InvalidRequest(message, hint="Leave it out.", param=whole, code="unknown_parameter")
    field = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return InvalidRequest(f"{field} is missing.", hint="See docs/engine.md.", param=field, code="missing_required_parameter")
    said = first["msg"].removeprefix("Value error, ")
    return InvalidRequest(f"{whole}: {said}.", hint="See docs/engine.md.", param=field, code="invalid_value")
