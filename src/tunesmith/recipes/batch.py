"""A batch: a file of requests, what each of them asks, and until when. No network, no SQL."""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipes.method import Part

Endpoint = Literal["/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/completions", "/v1/moderations"]


class BatchRecipe(Part):
    """One batch."""

    kind: Literal["batch"] = "batch"
    """What job this is."""
    version: Literal[1] = 1
    """Version of this shape; a worker refuses a version that it does not know."""
    input: str = "input.jsonl"
    """The file of requests, relative to the run folder: one JSON object a line."""
    endpoint: Endpoint
    """What every request of the file asks."""
    expires: int
    """Seconds since 1970 after which no request is begun any more."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests under way at once; 8 fill most of what an engine on a CPU can compute together."""
