"""Graders' judges and embeddings inside the desk: asked like chat, with the caller's key, so that limits and aliases hold."""

from typing import Any

from tunesmith.api.chat import ask_engine
from tunesmith.api.deps import Desk
from tunesmith.api.resolve import target_of
from tunesmith.completer import Completion, failure, to_completion, to_vectors
from tunesmith.db.keys import Key
from tunesmith.serving.routing import CHAT, EMBEDDINGS
from tunesmith.types import Message


class DeskJudge:
    """A `completer.Judge` for one request."""

    def __init__(self, desk: Desk, key: Key):
        self._desk, self._key = desk, key

    async def complete(self, model: str, messages: list[Message], **sampling: Any) -> Completion:
        """Raises NotFound for an unknown model, InvalidRequest for what the engine refuses, EngineFailed."""
        return to_completion(await self._ask(model, CHAT, {"messages": messages, **sampling}))

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """Raises InvalidRequest, EngineFailed."""
        body = await self._ask(embedding_model(self._desk), EMBEDDINGS, {"input": texts, "encoding_format": "float"})
        return to_vectors(body)

    async def _ask(self, model: str, path: str, fields: dict[str, Any]) -> bytes:
        target = await target_of(self._desk, model, self._key.project)
        answer = await ask_engine(self._desk, self._key, target, path, {"model": model, **fields})
        body = await answer.read()
        if answer.status >= 400:
            raise failure(answer.status, body)
        return body


def embedding_model(desk: Desk) -> str:
    """Who embeds for the metric `cosine`: the embedding model, or else the base that the server was started with first."""
    return desk.settings.embedding_model or desk.settings.bases[0]
