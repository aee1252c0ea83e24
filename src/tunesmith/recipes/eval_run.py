"""An eval run: rows, what a model is asked about each, and the graders of its answers. No network, no SQL."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.recipes.grader import Criterion, Messages
from tunesmith.recipes.method import Part


class SamplingRecipe(Part):
    """How each row's answer is made."""

    model: str
    """Who answers: a base, a fine-tuned model or an alias."""
    template: Messages | None = None
    """The conversation to go on with; its texts may hold templates over `item`."""
    reference: str | None = None
    """Where the row has the conversation, such as `item.input`; one of the two is set."""
    fields: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the chat completion, such as temperature, seed and tools."""


class EvalRunRecipe(Part):
    """One run of an eval."""

    kind: Literal["eval_run"] = "eval_run"
    """What job this is."""
    version: Literal[1] = 1
    """Version of this shape; a worker refuses a version that it does not know."""
    rows: str = "rows.jsonl"
    """The rows, relative to the run folder: one object a line, `item` and, where the answer is there already, `sample`."""
    item_schema: dict[str, Any] | None = None
    """JSON schema that every `item` must fulfil; a row that does not is an item with an error."""
    criteria: Annotated[list[Criterion], Field(min_length=1)]
    """The graders."""
    sampling: SamplingRecipe | None = None
    """How answers are made; None grades the rows' own."""
    embedding_model: str
    """Who embeds for the metric cosine."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 16
    """Rows under way at once: enough to fill the engine's batch; interactive traffic goes first all the same."""
