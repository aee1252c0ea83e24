"""Which bases this server offers: those that it was started with, and those on its shelf. A client's word is never a path."""

from tunesmith.errors import NotFound
from tunesmith.models.catalog import Base, find_base, list_bases
from tunesmith.settings import Settings


def offered(settings: Settings) -> dict[str, Base]:
    """Id -> base, the default first."""
    named = [find_base(name, settings.dirs.models) for name in settings.bases]
    return {base.id: base for base in (*named, *list_bases(settings.dirs.models))}


def find_offered(settings: Settings, base_id: str) -> Base:
    """Raises NotFound with OpenAI's code."""
    bases = offered(settings)
    if base_id not in bases:
        message = f"The model {base_id[:200]!r} does not exist or cannot be trained."
        raise NotFound(message, hint=f"There are: {', '.join(bases)}.", param="model", code="model_not_found")
    return bases[base_id]
