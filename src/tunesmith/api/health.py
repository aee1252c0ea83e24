"""What a machine or a person asks first: is it up, and what is it? Needs no key, and tells nothing that needs one."""

from importlib.metadata import version

from fastapi import APIRouter

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/")
async def root() -> dict[str, str]:
    return {
        "name": "tunesmith",
        "version": version("tunesmith"),
        "what": "OpenAI-compatible fine-tuning and serving; point the openai client's base_url at /v1.",
    }
