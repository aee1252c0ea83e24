"""/v1/embeddings: of the embedding model that the server was given, or else of the base or fine-tuned model that was asked."""

from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from tunesmith.api.bases import find_offered
from tunesmith.api.chat import ask_engine, reply, with_priority
from tunesmith.api.deps import Desk, DeskDep, KeyDep, needs
from tunesmith.api.resolve import target_of
from tunesmith.api.streams import json_body, unless_gone
from tunesmith.schemas import embeddings as wire
from tunesmith.schemas.chat import dumps, loads
from tunesmith.serving.routing import EMBEDDINGS, Target, base_target

router = APIRouter()


@router.post(EMBEDDINGS, dependencies=[needs("model.request")])
async def embed(request: Request, desk: DeskDep, key: KeyDep) -> Response:
    body = await json_body(request)
    wire.check_embeddings(body, desk.settings.engine)
    target = await embedder(desk, await target_of(desk, body.get("model"), key.project))
    question = with_priority(request, desk, wire.to_engine(body))
    answer = await unless_gone(request, ask_engine(desk, key, target, EMBEDDINGS, question))
    if body.get("dimensions") is None or answer.status >= 400:
        return await reply(request, answer)
    content = await unless_gone(request, answer.read())
    return Response(dumps(wire.cut(loads(content), body)), media_type="application/json", headers=answer.headers)


async def embedder(desk: Desk, target: Target) -> Target:
    """Who computes: a fine-tuned model is meant itself; a base, or its alias, gives way to the embedding model."""
    if desk.settings.embedding_model is None or target.adapter is not None:
        return target
    base = await run_in_threadpool(find_offered, desk, desk.settings.embedding_model)
    return replace(base_target(base.id), model_id=target.model_id)
