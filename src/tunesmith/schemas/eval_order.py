"""What a client may ask of an eval run: where the rows come from, who answers them and how. It becomes a recipe in `to_recipe`.

Rows are written by somebody else. Tools and formats may be written as chat has them, or as responses do.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.db.evals import Eval
from tunesmith.errors import InvalidRequest
from tunesmith.recipes.eval_run import EvalRunRecipe, SamplingRecipe
from tunesmith.recipes.grader import Messages
from tunesmith.schemas.common import Body
from tunesmith.schemas.evals import Metadata, Name, Object

Model = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Seconds = Annotated[int, Field(ge=0, le=2**53)]


class RowIn(Body):
    item: Object
    sample: Object = Field(default_factory=dict)


class FileContent(Body):
    type: Literal["file_content"]
    content: Annotated[list[RowIn], Field(min_length=1, max_length=100_000)]


class FileId(Body):
    type: Literal["file_id"]
    id: Id


class StoredFilter(Body):
    """Which stored answers: those that fulfil all that is said here. `limit` takes the newest so many."""

    metadata: Metadata | None = None
    model: Model | None = None
    created_after: Seconds | None = None
    created_before: Seconds | None = None
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class StoredCompletions(StoredFilter):
    type: Literal["stored_completions"]


class StoredResponses(StoredFilter):
    type: Literal["responses"]
    instructions_search: str | None = None
    reasoning_effort: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    users: list[str] | None = None
    tools: list[str] | None = None


class Template(Body):
    type: Literal["template"]
    template: Messages


class ItemReference(Body):
    type: Literal["item_reference"]
    item_reference: Annotated[str, Field(min_length=1, max_length=500)]


InputMessages = Annotated[Template | ItemReference, Field(discriminator="type")]


class SamplingParams(Body):
    """Each is passed on to the model."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completions_tokens: Annotated[int, Field(ge=1)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    tools: list[Object] | None = None


class ChatParams(SamplingParams):
    response_format: Object | None = None


class TextParams(Body):
    format: Object


class ResponseParams(SamplingParams):
    text: TextParams | None = None


class Jsonl(Body):
    type: Literal["jsonl"]
    source: Annotated[FileContent | FileId, Field(discriminator="type")]


class Completions(Body):
    type: Literal["completions"]
    source: Annotated[FileContent | FileId | StoredCompletions, Field(discriminator="type")]
    input_messages: InputMessages | None = None
    model: Model | None = None
    sampling_params: ChatParams | None = None


class Responses(Body):
    type: Literal["responses"]
    source: Annotated[FileContent | FileId | StoredResponses, Field(discriminator="type")]
    input_messages: InputMessages | None = None
    model: Model | None = None
    sampling_params: ResponseParams | None = None


Source = FileContent | FileId | StoredCompletions | StoredResponses
DataSource = Annotated[Jsonl | Completions | Responses, Field(discriminator="type")]


class RunCreate(Body):
    """The body of POST /v1/evals/{eval_id}/runs."""

    name: Name = ""
    metadata: Metadata | None = None
    data_source: DataSource


DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "seed": 42}
"""OpenAI's, of an eval run."""


def to_recipe(data_source: DataSource, definition: Eval, *, embedding_model: str) -> EvalRunRecipe:
    """Raises InvalidRequest naming what is missing."""
    schema = definition.config.get("item_schema")
    return EvalRunRecipe.model_validate({
        "item_schema": schema, "criteria": definition.criteria, "embedding_model": embedding_model,
        "sampling": _to_sampling(data_source),
    })  # fmt: skip


def _to_sampling(source: DataSource) -> SamplingRecipe | None:
    """How the model is asked; None when the rows' own answers are graded."""
    if isinstance(source, Jsonl):
        return None
    is_stored = isinstance(source.source, StoredFilter)
    if source.model is None:
        if is_stored and source.input_messages is None and source.sampling_params is None:
            return None
        raise _missing("model", "Name the model that shall answer.")
    if source.input_messages is None and not is_stored:
        raise _missing("input_messages", "Say what the model is asked: a template, or where the row has the messages.")
    template = source.input_messages.template if isinstance(source.input_messages, Template) else None
    reference = source.input_messages.item_reference if isinstance(source.input_messages, ItemReference) else "item.input"
    return SamplingRecipe(
        model=source.model, template=template, reference=None if template else reference,
        fields=to_fields(source.sampling_params or SamplingParams()),
    )  # fmt: skip


def _missing(field: str, hint: str) -> InvalidRequest:
    param = f"data_source.{field}"
    return InvalidRequest(f"Missing required parameter: {param}.", hint=hint, param=param, code="missing_required_parameter")


def to_order(body: RunCreate) -> dict[str, Any]:
    """What the client asked for, as the run echoes it."""
    return {"name": body.name, "data_source": body.data_source.model_dump(mode="json", exclude_unset=True)}


def to_fields(params: SamplingParams) -> dict[str, Any]:
    """Fields of a chat completion; tools and formats that are written as for responses are turned into chat's."""
    fields = params.model_dump(exclude_none=True)
    limit = fields.pop("max_completions_tokens", None)
    fields |= {} if limit is None else {"max_completion_tokens": limit}
    if "tools" in fields:
        fields["tools"] = [_chat_tool(tool, number) for number, tool in enumerate(fields["tools"])]
    if "text" in fields:
        fields["response_format"] = _chat_format(fields.pop("text")["format"])
    return DEFAULTS | fields


def _chat_tool(tool: dict[str, Any], number: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        param = f"data_source.sampling_params.tools.{number}"
        message = f"The tool {str(tool.get('type'))[:80]!r} is not available here."
        raise InvalidRequest(message, hint="Functions are.", param=param, code="not_available")
    return tool if "function" in tool else {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


def _chat_format(form: dict[str, Any]) -> dict[str, Any]:
    if form.get("type") != "json_schema" or "json_schema" in form:
        return form
    return {"type": "json_schema", "json_schema": {key: value for key, value in form.items() if key != "type"}}
