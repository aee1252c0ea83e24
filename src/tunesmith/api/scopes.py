"""What a key may do: roles are sets of scopes, a key's own list narrows its role, and models are named by patterns.

A scope is `<noun>.read` or `<noun>.write`, or `model.request`. Pure: knows no routes, no rows.
"""

from fnmatch import fnmatchcase

from tunesmith.db.keys import Key
from tunesmith.errors import Forbidden, InvalidRequest
from tunesmith.types import DEFAULT_PROJECT, Role

NOUNS = (
    "files", "fine_tuning", "models", "graders", "evals", "batches", "responses", "completions", "webhooks", "plans", "adapters",
)
"""What belongs to a project."""
REQUEST = "model.request"
MANAGING = frozenset({"keys.read", "keys.write", "usage.read", "permissions.read", "permissions.write"})
"""What only an owner may do in a project."""
ORGANIZATION = frozenset({"projects.read", "projects.write", "bases.write", "metrics.read"})
"""What concerns all projects: open to owners of the default project, which is the organization's own."""

READING = frozenset({"bases.read", *(f"{noun}.read" for noun in NOUNS)})
WRITING = frozenset(f"{noun}.write" for noun in NOUNS)
ALL = READING | WRITING | MANAGING | ORGANIZATION | {REQUEST}
ROLES: dict[Role, frozenset[str]] = {"viewer": READING, "member": READING | WRITING | {REQUEST}, "owner": ALL}


def scopes_of(key: Key) -> frozenset[str]:
    """All scopes that the key has."""
    scopes = ROLES[key.role] if key.scopes is None else ROLES[key.role] & set(key.scopes)
    return scopes if key.project == DEFAULT_PROJECT else scopes - ORGANIZATION


def check_scope(key: Key, scope: str) -> None:
    """Raises Forbidden."""
    if scope not in scopes_of(key):
        message = f"You have insufficient permissions for this operation. Missing scopes: {scope}."
        raise Forbidden(message, hint="Ask an owner of the project for a key that has it.")


def may_ask(key: Key, *names: str) -> bool:
    """May the key use a model that is called by these names (an alias, and what it stands for)?"""
    return key.models is None or any(fnmatchcase(name, pattern) for name in names for pattern in key.models)


def check_model(key: Key, *names: str) -> None:
    """Raises Forbidden, as OpenAI does for a model that a project may not use."""
    if not may_ask(key, *names):
        message = f"The key {key.id} does not have access to model {names[0][:200]!r}."
        raise Forbidden(message, hint=f"It may use: {', '.join(key.models or ())}.", param="model", code="model_not_found")


def check_known(scopes: list[str] | None) -> None:
    """Raises InvalidRequest for a scope that is none."""
    for scope in scopes or ():
        if scope not in ALL:
            message = f"{scope[:80]!r} is no scope."
            raise InvalidRequest(message, hint=f"There are: {', '.join(sorted(ALL))}.", param="scopes", code="invalid_value")


def check_grant(giver: Key, role: Role, scopes: list[str] | None, models: list[str] | None) -> None:
    """Nobody gives away what they do not have. Raises Forbidden."""
    wanted = ROLES[role] if scopes is None else ROLES[role] & set(scopes)
    missing = sorted(wanted - ORGANIZATION - scopes_of(giver))
    if missing:
        hint = "Name `scopes` that you have."
        raise Forbidden(f"You cannot give scopes that you do not have: {', '.join(missing)}.", hint=hint, param="scopes")
    if giver.models is not None and (models is None or not set(models) <= set(giver.models)):
        hint = f"Name some of: {', '.join(giver.models)}."
        raise Forbidden("You cannot give access to models that you have no access to.", hint=hint, param="models")
