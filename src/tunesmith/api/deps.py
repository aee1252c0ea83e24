"""What a request may reach: the desk (settings, database, store, queue, supervisor, router) and the key that it came with."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request, params

from tunesmith.api.admission import Admission
from tunesmith.api.auth import Callers
from tunesmith.api.background import Background
from tunesmith.api.keeper import Keeper
from tunesmith.api.names import Names
from tunesmith.api.scopes import ALL, check_scope
from tunesmith.db.keys import Key
from tunesmith.db.session import Database
from tunesmith.jobs.queue import Queue
from tunesmith.jobs.runner import Supervisor
from tunesmith.serving.routing import Router
from tunesmith.settings import Settings
from tunesmith.store import BlobStore


@dataclass(frozen=True)
class Desk:
    """Made once, when the app starts."""

    settings: Settings
    database: Database
    store: BlobStore
    queue: Queue
    supervisor: Supervisor
    router: Router
    callers: Callers
    admission: Admission
    keeper: Keeper
    background: Background
    names: Names = field(default_factory=Names)
    withdrawn: set[str] = field(default_factory=set)
    """Bases that this server was started with and offers no more."""


async def get_desk(request: Request) -> Desk:
    """A coroutine, though it waits for nothing: FastAPI would run a function in another thread."""
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk


DeskDep = Annotated[Desk, Depends(get_desk)]


async def require_key(request: Request, desk: DeskDep) -> Key:
    """Raises Unauthorized, RateLimited."""
    address = request.client.host if request.client is not None else ""
    return (await desk.callers.check(request.headers.getlist("authorization"), address)).key


KeyDep = Annotated[Key, Depends(require_key)]


class Needs:
    """A route's declaration of its scope, and the check of it. A noun alone is its `.read` for GET, its `.write` for the rest."""

    def __init__(self, what: str):
        self._by_method = {} if "." in what else {"GET": f"{what}.read", "HEAD": f"{what}.read"}
        self._else = what if "." in what else f"{what}.write"
        unknown = {self._else, *self._by_method.values()} - ALL
        assert not unknown, f"scopes.py does not have {unknown}"

    def scope(self, method: str) -> str:
        return self._by_method.get(method, self._else)

    async def __call__(self, request: Request, key: KeyDep) -> None:
        """Raises Forbidden."""
        check_scope(key, self.scope(request.method))


def needs(what: str) -> params.Depends:
    """For `dependencies=[...]` of a router or a route: `needs("files")`, `needs("model.request")`."""
    return params.Depends(Needs(what))


async def _room_for_a_job(desk: DeskDep, key: KeyDep) -> None:
    """Raises RateLimited."""
    await desk.admission.check_jobs(key)


room_for_a_job = params.Depends(_room_for_a_job)
"""For `dependencies=[...]` of the routes that order jobs."""
