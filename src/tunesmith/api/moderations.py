"""/v1/moderations: a model that the server's owner names judges texts by OpenAI's categories. It is as good as that model is."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from tunesmith.api.deps import DeskDep, KeyDep, needs
from tunesmith.api.judge import DeskJudge
from tunesmith.api.streams import json_body, unless_gone
from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.schemas import moderations as wire

router = APIRouter()


@router.post("/v1/moderations", dependencies=[needs("model.request")])
async def moderate(request: Request, desk: DeskDep, key: KeyDep) -> dict[str, Any]:
    body = await json_body(request)
    texts = wire.to_texts(body)
    judge = desk.settings.moderation_model
    if judge is None:
        hint = "Start the server with --moderation-model MODEL."
        raise InvalidRequest("No model judges here.", hint=hint, param="model", code="not_available")
    _check_name(body.get("model"), judge)
    results = await unless_gone(request, _judge_all(DeskJudge(desk, key), judge, texts))
    return wire.to_answer(judge, results)


def _check_name(model: Any, judge: str) -> None:
    """Raises NotFound for a name that neither is the judge's nor means it."""
    if model is not None and model != judge and not str(model).startswith(wire.NAMES):
        message = f"The model {str(model)[:200]!r} does not judge here."
        raise NotFound(message, hint=f"Name {judge}, or leave it out.", param="model", code="model_not_found")


async def _judge_all(judge: DeskJudge, model: str, texts: list[str]) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(_judged(judge, model, text) for text in texts)))


async def _judged(judge: DeskJudge, model: str, text: str) -> dict[str, Any]:
    messages, sampling = wire.to_question(text)
    return wire.to_result((await judge.complete(model, messages, **sampling)).message.get("content"))
