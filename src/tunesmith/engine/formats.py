"""The fields that say what an answer must look like: OpenAI's `response_format`, vLLM's `structured_outputs`. No torch."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tunesmith.engine.constraints import ANY_OBJECT, choice_grammar, json_grammar, lark_grammar, regex_grammar
from tunesmith.errors import InvalidRequest


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class JsonSchema(Shape):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: dict[str, Any] = Field(default=ANY_OBJECT, alias="schema")
    strict: bool | None = None
    """A schema is always held; there is no other way here."""


class ResponseFormat(Shape):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with the type json_schema, and the type with it")
        return self

    @property
    def schema_asked(self) -> dict[str, Any] | None:
        if self.json_schema is not None:
            return self.json_schema.schema_
        return ANY_OBJECT if self.type == "json_object" else None

    def grammar(self) -> str | None:
        """None for text. Raises InvalidRequest."""
        schema = self.schema_asked
        return None if schema is None else _made(lambda: json_grammar(schema), "response_format")


class StructuredOutputs(Shape):
    json_: dict[str, Any] | bool | str | None = Field(default=None, alias="json")
    """A schema, or its text."""
    regex: str | None = None
    grammar_: str | None = Field(default=None, alias="grammar")
    """llguidance's Lark."""
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "StructuredOutputs":
        if sum(value is not None for value in (self.json_, self.regex, self.grammar_, self.choice)) != 1:
            raise ValueError("give exactly one of json, regex, grammar and choice")
        return self

    def grammar(self) -> str:
        """Raises InvalidRequest."""
        if self.regex is not None:
            return regex_grammar(self.regex)
        if self.grammar_ is not None:
            return lark_grammar(self.grammar_)
        if self.choice is not None:
            return choice_grammar(self.choice)
        return _made(lambda: json_grammar(self.json_), "structured_outputs")


def _made(make: Callable[[], str], param: str) -> str:
    try:
        return make()
    except ValueError as error:
        message = f"{param} holds no schema that can be read: {str(error)[:200]}."
        raise InvalidRequest(message, hint="See docs/engine.md.", param=param, code="invalid_value") from error
