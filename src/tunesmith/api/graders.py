"""/v1/fine_tuning/alpha/graders: run a grader on one answer, or see whether it can be run."""

import time
from typing import Any

from fastapi import APIRouter, Request

from tunesmith.api.deps import DeskDep, KeyDep, needs
from tunesmith.api.judge import DeskJudge
from tunesmith.api.streams import unless_gone
from tunesmith.evals.samples import with_json
from tunesmith.graders.check import check
from tunesmith.graders.grade import grade
from tunesmith.schemas import graders as wire

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", dependencies=[needs("graders")])


@router.post("/run")
async def run(body: wire.GraderRun, request: Request, desk: DeskDep, key: KeyDep) -> wire.GraderResult:
    check(body.grader)
    begun = time.perf_counter()
    sample = {"output_text": body.model_sample, **with_json(body.model_sample)}
    graded = await unless_gone(request, grade(body.grader, body.item, sample, DeskJudge(desk, key)))
    return wire.from_graded(body.grader, graded, time.perf_counter() - begun)


@router.post("/validate")
async def validate(body: wire.GraderValidate, request: Request, key: KeyDep) -> dict[str, Any]:
    """The grader as it was sent, when nothing is wrong with it."""
    check(body.grader)
    return {"grader": wire.to_echo((await request.json())["grader"])}
