"""What a machine or a person asks first: is it up, and what is it? Needs no key, and tells nothing that needs one."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter

from tunesmith.api.bases import from_state
from tunesmith.api.deps import DeskDep

router = APIRouter()


@router.get("/health")
async def health(desk: DeskDep) -> dict[str, Any]:
    """`ok`, or `loading` while an engine starts: orders are taken all the same, and questions wait for it."""
    engines = [from_state(state) for state in await desk.router.states()]
    is_loading = any(engine.status == "loading" for engine in engines)
    return {"status": "loading" if is_loading else "ok", "engines": [engine.model_dump() for engine in engines]}


@router.get("/")
async def root() -> dict[str, str]:
    return {
        "name": "tunesmith",
        "version": version("tunesmith"),
        "what": "OpenAI-compatible fine-tuning and serving; point the openai client's base_url at /v1.",
    }
