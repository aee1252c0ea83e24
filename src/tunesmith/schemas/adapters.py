"""Adapter versions and aliases on the wire: ours, for OpenAI has none. A version is named by its content hash."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.db.aliases import Alias as AliasRow
from tunesmith.db.models import FineTuned
from tunesmith.schemas.common import Body, Wire

ALIAS = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def is_alias(name: str) -> bool:
    """Can this be an alias? Names of fine-tuned models hold a colon, so that none can be hidden by one."""
    return re.fullmatch(ALIAS, name) is not None


class Adapter(Wire):
    """One immutable state of an adapter, whatever it is called."""

    id: str
    """The content hash: equal ones compute the same."""
    object: Literal["adapter"] = "adapter"
    created_at: int
    base: str
    quantization: str
    job_id: str
    models: list[str]
    """Fine-tuned models and checkpoints that it answers as."""
    aliases: list[str]
    kind: str | None
    rank: int | None
    """None for a soft prompt, and where the files are gone."""
    bytes: int | None


class AliasPut(Body):
    """The body of POST /v1/adapters/aliases: makes an alias, or moves it."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=ALIAS)]
    model: Annotated[str, Field(min_length=1, max_length=500)]


class Alias(Wire):
    id: str
    object: Literal["adapter.alias"] = "adapter.alias"
    name: str
    model: str
    previous: str | None
    """The model that it stood for before it was moved: where a rollback goes."""
    created_at: int
    moved_at: int


class AliasDeleted(Wire):
    id: str
    object: Literal["adapter.alias"] = "adapter.alias"
    deleted: bool = True


def from_models(same: list[FineTuned], aliases: list[AliasRow], facts: dict[str, Any]) -> Adapter:
    """Models of one content hash, oldest first, as the version that they are; `facts` come from its files: kind, rank, bytes."""
    first, names = same[0], [model.id for model in same]
    return Adapter(
        id=first.content_hash,
        created_at=first.created,
        base=first.base,
        quantization=first.quantization,
        job_id=first.job_id,
        models=names,
        aliases=[alias.name for alias in aliases if alias.model in names],
        kind=facts.get("kind"),
        rank=facts.get("rank") or None,
        bytes=facts.get("bytes"),
    )


def from_alias(row: AliasRow) -> Alias:
    return Alias(id=row.id, name=row.name, model=row.model, previous=row.previous, created_at=row.created, moved_at=row.moved)
