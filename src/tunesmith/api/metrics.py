"""/metrics: what every engine that runs tells Prometheus, with base, precision and replica as labels. Needs a key."""

from fastapi import APIRouter
from fastapi.responses import Response

from tunesmith.api.deps import DeskDep, needs
from tunesmith.serving.exposition import merge

router = APIRouter(dependencies=[needs("metrics.read")])
TEXT = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics")
async def metrics(desk: DeskDep) -> Response:
    return Response(merge(await desk.router.metrics()), media_type=TEXT)
