"""/v1/fine_tuning/alpha/graders: run a grader on one answer, or see whether it can be run."""

import json
import time
from typing import Any

from fastapi import APIRouter, Request

from tunesmith.api.deps import DeskDep, KeyDep, needs
from tunesmith.api.judge import DeskJudge
from tunesmith.api.streams import unless_gone
from tunesmith.graders.check import check
from tunesmith.graders.grade import grade
from tunesmith.schemas import graders as wire

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", dependencies=[needs("graders")])


@router.post("/run")
async def run(body: wire.GraderRun, request: Request, desk: DeskDep, key: KeyDep) -> wire.GraderResult:
    check(body.grader)
    begun = time.perf_counter()
    graded = await unless_gone(request, grade(body.grader, body.item, to_sample(body.model_sample), DeskJudge(desk, key)))
    return wire.from_graded(body.grader, graded, time.perf_counter() - begun)


@router.post("/validate")
async def validate(body: wire.GraderValidate, request: Request, key: KeyDep) -> dict[str, Any]:
    """The grader as it was sent, when nothing is wrong with it."""
    check(body.grader)
    return {"grader": (await request.json())["grader"]}


def to_sample(text: str) -> dict[str, Any]:
    """The `sample` of templates."""
    try:
        return {"output_text": text, "output_json": json.loads(text)}
    except (ValueError, RecursionError):
        return {"output_text": text}
