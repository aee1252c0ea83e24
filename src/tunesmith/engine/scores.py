"""Scores of reward models: what is asked of /v1/score, and the answer. One number for a conversation, and no tokens. No torch."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from tunesmith.engine.requests import Order
from tunesmith.engine.responses import Collected, Json
from tunesmith.types import Message


class ScoreRequest(Order):
    """A conversation whose last message is the answer to be scored, or token ids as they are."""

    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    tools: list[dict[str, Any]] = []
    prompt: Annotated[list[int], Field(min_length=1)] | None = None
    return_token_ids: bool = False
    """The answer gets `token_ids`, those that were scored."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "ScoreRequest":
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give either messages or prompt")
        return self


def score_answer(request: ScoreRequest, prompt: list[int], choice: Collected) -> Json:
    (score,) = choice.embedding or [float("nan")]
    item: Json = {"object": "score", "index": 0, "score": score}
    return {
        "object": "list",
        "data": [item | ({"token_ids": prompt} if request.return_token_ids else {})],
        "model": request.model,
        "usage": {"prompt_tokens": len(prompt), "total_tokens": len(prompt)},
    }
