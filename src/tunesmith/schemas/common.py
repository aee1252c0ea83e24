"""What several wire shapes share: strict bodies, lists with a cursor, and deletions, as OpenAI has them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

ORGANIZATION = "local"
"""The organization that owns everything on one's own machine; it stands in the ids of fine-tuned models."""


class Body(BaseModel):
    """What a client sends: an unknown field is refused by name, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Wire(BaseModel):
    """What we send."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Sparse(Wire):
    """What we send where OpenAI's specification has fields that may be missing, but not null: None is left out."""

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        whole: dict[str, Any] = serialize(self)
        return {name: value for name, value in whole.items() if value is not None}


class Deleted(Wire):
    id: str
    object: Literal["file", "model"]
    deleted: bool = True


def to_list(items: list[Any], *, has_more: bool = False) -> dict[str, Any]:
    """OpenAI's list object of wire shapes that have ids; the next page is asked for with `after=last_id`."""
    return {
        "object": "list",
        "data": [item.model_dump() for item in items],
        "first_id": items[0].id if items else None,
        "last_id": items[-1].id if items else None,
        "has_more": has_more,
    }
