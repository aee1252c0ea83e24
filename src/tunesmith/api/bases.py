"""Which bases this server offers, and /v1/bases, where one is added or taken away while it runs.

Offered are those that it was started with, and those on its shelf. A client's word is never a path: what is not on the shelf is
put there by `tunesmith models add`, on the server's own machine.
"""

from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from tunesmith.api.deps import Desk, DeskDep, needs
from tunesmith.errors import NotFound
from tunesmith.models.catalog import Base, find_base, list_bases
from tunesmith.schemas.common import Body, Wire
from tunesmith.schemas.models import EngineStatus
from tunesmith.serving.routing import EngineState

router = APIRouter(prefix="/v1/bases", dependencies=[needs("bases")])


class AddBase(Body):
    """A base on the shelf, whose engine is to run."""

    base: str


class Offered(Wire):
    id: str
    object: Literal["base"] = "base"
    engines: list[EngineStatus]


def from_state(engine: EngineState) -> EngineStatus:
    """Of a base that is named by its path only the last part is shown: /health needs no key."""
    name = Path(engine.base).name if engine.base.startswith("/") else engine.base
    state = engine.state
    return EngineStatus(
        base=name, quantization=engine.quantization, replica=engine.replica, status=state.status, progress=state.progress,
        stage=state.stage if state.status == "loading" else "", running=state.running, waiting=state.waiting,
    )


def offered(desk: Desk) -> dict[str, Base]:
    """Id -> base, the default first."""
    models_dir = desk.settings.dirs.models
    named = [find_base(name, models_dir) for name in desk.settings.bases if name not in desk.withdrawn]
    return {base.id: base for base in (*named, *list_bases(models_dir)) if base.id not in desk.withdrawn}


def find_offered(desk: Desk, base_id: str) -> Base:
    """Raises NotFound with OpenAI's code."""
    bases = offered(desk)
    if base_id not in bases:
        message = f"The model {base_id[:200]!r} does not exist or cannot be trained."
        raise NotFound(message, hint=f"There are: {', '.join(bases)}.", param="model", code="model_not_found")
    return bases[base_id]


@router.get("")
async def list_offered(desk: DeskDep) -> dict[str, Any]:
    """Each base with its engines, an empty list when none was started yet."""
    bases = await run_in_threadpool(offered, desk)
    return {"object": "list", "data": [(await _show(desk, base)).model_dump() for base in bases]}


@router.post("")
async def add(body: AddBase, desk: DeskDep) -> Offered:
    """Starts its engine at once; 503 with code `does_not_fit` and the figures when there is no memory for it."""
    was_withdrawn = body.base in desk.withdrawn
    desk.withdrawn.discard(body.base)
    try:
        base = await run_in_threadpool(find_offered, desk, body.base)
    except NotFound:
        if was_withdrawn:
            desk.withdrawn.add(body.base)
        raise
    desk.router.add(base.id)
    return await _show(desk, base.id)


@router.delete("/{base_id:path}")
async def remove(base_id: str, desk: DeskDep) -> dict[str, Any]:
    """Offers it no more; its answers end, then its engines are stopped. Its files stay where they are."""
    base = await run_in_threadpool(find_offered, desk, base_id)
    desk.withdrawn.add(base.id)
    desk.names.forget()
    await desk.router.remove(base.id)
    return {"id": base.id, "object": "base", "deleted": True}


async def _show(desk: Desk, base_id: str) -> Offered:
    return Offered(id=base_id, engines=[from_state(state) for state in await desk.router.states() if state.base == base_id])
