"""Projects and keys on the wire: our own nouns, in OpenAI's manner. The text of a key is shown once, when it is made."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.db.keys import Key
from tunesmith.db.projects import Project
from tunesmith.schemas.common import Body, Wire
from tunesmith.types import Limits, Role

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Words = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1, max_length=100)]
MAX_OVERLAP_SECONDS = 30 * 24 * 3600


class LimitsBody(Body):
    """What is left out is not limited. A day and a month are UTC's."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    jobs_at_once: Count | None = None
    tokens_per_day: Count | None = None
    tokens_per_month: Count | None = None


class ProjectCreate(Body):
    name: Name
    limits: LimitsBody | None = None


class ProjectChange(Body):
    """What is left out stays; `limits` are replaced as a whole."""

    name: Name | None = None
    limits: LimitsBody | None = None


class KeyCreate(Body):
    """Without `project`, the caller's own; without `scopes` and `models`, all that the role has.

    `expires_at` is a time in seconds since 1970.
    """

    name: Name
    project: str | None = None
    role: Role = "member"
    scopes: Words | None = None
    models: Words | None = None
    limits: LimitsBody | None = None
    expires_at: Annotated[int, Field(ge=0, lt=1 << 40)] | None = None


class KeyChange(Body):
    """What is left out stays; `limits`, `scopes` and `models` are replaced as a whole, and null takes them away."""

    name: Name | None = None
    scopes: Words | None = None
    models: Words | None = None
    limits: LimitsBody | None = None


class KeyRotate(Body):
    """How long the old key works beside the new one."""

    overlap_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS)] = 24 * 3600


class ProjectObject(Wire):
    id: str
    object: Literal["project"] = "project"
    name: str
    created_at: int
    archived_at: int | None
    limits: Limits


class KeyObject(Wire):
    id: str
    object: Literal["key"] = "key"
    name: str
    project: str
    role: Role
    scopes: list[str] | None
    models: list[str] | None
    limits: Limits
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    successor: str | None


class NewKey(KeyObject):
    """The only object that shows the key's text."""

    key: str


def to_limits(body: LimitsBody | None) -> Limits | None:
    return None if body is None else body.model_dump(exclude_none=True)


def to_changes(body: KeyChange) -> dict[str, Any]:
    """What a change changes, as the table has it. A name cannot be taken away."""
    changes = body.model_dump(include=body.model_fields_set, exclude={"limits", "name"})
    if body.name is not None:
        changes["name"] = body.name
    return changes | ({"limits": to_limits(body.limits)} if "limits" in body.model_fields_set else {})


def from_project(project: Project) -> ProjectObject:
    return ProjectObject(
        id=project.id, name=project.name, created_at=project.created, archived_at=project.archived, limits=project.limits or {},
    )  # fmt: skip


def from_key(key: Key) -> KeyObject:
    return KeyObject(
        id=key.id, name=key.name, project=key.project, role=key.role, scopes=key.scopes, models=key.models,
        limits=key.limits or {}, created_at=key.created, expires_at=key.expires, revoked_at=key.revoked,
        last_used_at=key.last_used, successor=key.successor,
    )  # fmt: skip


def to_new_key(key: Key, text: str) -> NewKey:
    return NewKey(**from_key(key).model_dump(), key=text)
