"""The HTTP application: one router per resource, one error body, one place where the desk is put together and taken down.

Imports no torch: what computes runs in child processes, started by the supervisor (workers) and the router (engines).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from tunesmith.api import (
    adapters,
    bases,
    batches,
    chat,
    checkpoints,
    embeddings,
    errors,
    eval_runs,
    evals,
    files,
    fine_tuning,
    graders,
    health,
    job_events,
    keys,
    metrics,
    models,
    moderations,
    plan,
    projects,
    responses,
    stored,
    tokens,
    uploads,
    usage,
    webhooks,
)
from tunesmith.api.admission import Admission
from tunesmith.api.asking import resume
from tunesmith.api.auth import Callers
from tunesmith.api.background import Background
from tunesmith.api.deps import Desk, require_key
from tunesmith.api.direct import shortcut
from tunesmith.api.keeper import Keeper
from tunesmith.api.meter import Meter
from tunesmith.api.middleware import BodyLimit, Boundary
from tunesmith.api.sweep import sweeping
from tunesmith.db.migrate import open_database
from tunesmith.jobs.queue import Queue
from tunesmith.jobs.runner import Supervisor
from tunesmith.jobs.webhooks import Courier
from tunesmith.serving.processes import EngineProcess
from tunesmith.serving.routing import CHAT, COMPLETIONS, EMBEDDINGS, Router
from tunesmith.settings import Settings
from tunesmith.store import open_store

RESOURCES = (
    files, uploads, fine_tuning, job_events, checkpoints, graders, evals, eval_runs, batches, models, adapters, plan,
    bases, chat, responses, embeddings, moderations, stored, tokens, projects, keys, usage, metrics, webhooks,
)
"""Their routers; each route declares its scope (`deps.needs`)."""
OFTEN = ((chat, CHAT), (chat, COMPLETIONS), (embeddings, EMBEDDINGS), (responses, "/v1/responses"))
"""Routes that are worth a short way."""


def create_app(settings: Settings, started: EngineProcess | None = None) -> FastAPI:
    """The application; it makes and opens its data directory when it is started, not here.

    `started` is the default base's engine, if it was started already.
    """
    app = FastAPI(
        title="Tunesmith",
        version=version("tunesmith"),
        lifespan=lambda app: _serving(app, settings, started),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=[Middleware(Boundary), Middleware(BodyLimit, max_upload_bytes=settings.max_upload_bytes)],
    )
    errors.install(app)
    app.router.routes += [shortcut(resource.router, path) for resource, path in OFTEN]
    app.include_router(health.router)
    for resource in RESOURCES:
        app.include_router(resource.router, dependencies=[Depends(require_key)])
    return app


@asynccontextmanager
async def _serving(app: FastAPI, settings: Settings, started: EngineProcess | None) -> AsyncIterator[None]:
    """Opens the desk; at the end what was begun may end first, then all that it counted and kept is written."""
    router = Router(settings, started)
    if not settings.lazy:
        router.warm(settings.bases[0])
    desk = await run_in_threadpool(_open, settings, router, _on_loop(router.training))
    app.state.desk = desk
    desk.supervisor.start()
    courier = Courier(desk.database, allow_private=settings.allow_private_webhooks)
    courier.start()
    metering = asyncio.ensure_future(desk.admission.meter.run())
    tidying = asyncio.ensure_future(sweeping(desk.database, desk.store))
    resuming = asyncio.ensure_future(resume(desk))
    try:
        yield
    finally:
        tidying.cancel()
        resuming.cancel()
        await desk.background.stop()
        draining = asyncio.ensure_future(desk.router.drain())
        await run_in_threadpool(desk.supervisor.stop)
        await run_in_threadpool(courier.stop)
        await draining
        await desk.router.stop()
        await desk.keeper.settled()
        metering.cancel()
        await desk.admission.meter.flush(touch=True)
        desk.database.close()


def _on_loop(call: Callable[[bool], None]) -> Callable[[bool], None]:
    """`call`, for other threads; without effect once the loop is closed."""
    loop = asyncio.get_running_loop()

    def later(value: bool) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(call, value)

    return later


def _open(settings: Settings, router: Router, on_training: Callable[[bool], None]) -> Desk:
    dirs = settings.dirs.make()
    database = open_database(dirs.database, settings.database_url)
    store = open_store(dirs.blobs, settings.store)
    queue = Queue(database, lease_seconds=settings.lease_seconds)
    supervisor = Supervisor(settings, queue, store, on_training)
    callers = Callers(database)
    admission = Admission(database, callers, Meter(database, callers))
    return Desk(settings, database, store, queue, supervisor, router, callers, admission, Keeper(database, store), Background())
