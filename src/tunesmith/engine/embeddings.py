"""Answers of /v1/embeddings in OpenAI's shape. Pure functions; no HTTP, no torch."""

import base64
import math
import struct

from tunesmith.engine.requests import EmbeddingRequest
from tunesmith.engine.responses import Collected, Json
from tunesmith.errors import EngineFailed


def embedding_answer(request: EmbeddingRequest, prompts: list[list[int]], choices: list[Collected]) -> Json:
    """Raises EngineFailed for a vector that has no direction."""
    num_tokens = sum(len(prompt) for prompt in prompts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encoded(request, unit(choice.embedding or []))}
            for index, choice in enumerate(choices)
        ],
        "model": request.model,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def unit(vector: list[float]) -> list[float]:
    """Of length 1, as OpenAI's are: a dot product is then the cosine."""
    length = math.hypot(*vector)
    if not 0 < length < math.inf:
        raise EngineFailed("The model computed no valid embedding for this input.")
    return [value / length for value in vector]


def encoded(request: EmbeddingRequest, vector: list[float]) -> list[float] | str:
    """As numbers, or base64 of little-endian float32, which the openai package asks for by itself."""
    if request.encoding_format == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
