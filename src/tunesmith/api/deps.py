"""What a request may reach: the desk (settings, database, store, queue, supervisor, router) and the key that it came with."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from tunesmith.api import auth
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
    withdrawn: set[str] = field(default_factory=set)
    """Bases that this server was started with and offers no more."""


def get_desk(request: Request) -> Desk:
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk


DeskDep = Annotated[Desk, Depends(get_desk)]


def require_key(request: Request, desk: DeskDep) -> Key:
    """Raises Unauthorized. Runs in a worker thread, for it reads the database; so a revoked key ends at once."""
    return auth.check(desk.database, request.headers.getlist("authorization"))


KeyDep = Annotated[Key, Depends(require_key)]
