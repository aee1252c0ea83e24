"""/tokenize, /detokenize and /tokenizer_info in vLLM's shapes: what evaluation harnesses ask for. They name no model, or ours.

Knows no tokenizer: the engine has it, and what is told about it stands in the base's own files.
"""

import json
import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from tunesmith.api.bases import find_offered
from tunesmith.api.chat import ask_engine, reply
from tunesmith.api.deps import DeskDep, KeyDep, needs
from tunesmith.api.resolve import target_of
from tunesmith.api.streams import json_body, unless_gone
from tunesmith.errors import InvalidRequest
from tunesmith.serving.routing import DETOKENIZE, TOKENIZE

router = APIRouter(dependencies=[needs("model.request")])

SHOWN = (
    "add_bos_token", "add_eos_token", "bos_token", "eos_token", "model_max_length", "pad_token", "tokenizer_class", "unk_token",
)

GENERATION = re.compile(r"(?<=\{%-\s)(?:end)?generation(?=\s*-?%\})|(?<=\{%\s)(?:end)?generation(?=\s*-?%\})")
"""transformers' mark of what the assistant says. Plain Jinja does not know it; an `if true` in its place writes the same text."""

GIVEN = ("tools", "documents")


async def ask_tokenizer(request: Request, desk: DeskDep, key: KeyDep) -> Response:
    """Without a model, that of the first base."""
    body = await json_body(request)
    target = await target_of(desk, body.get("model") or desk.settings.bases[0], key.project)
    return await reply(request, await unless_gone(request, ask_engine(desk, key, target, request.url.path, body)))


for path in (TOKENIZE, DETOKENIZE):
    router.post(path)(ask_tokenizer)


@router.get("/tokenizer_info")
async def tokenizer_info(desk: DeskDep, key: KeyDep, model: str | None = None) -> dict[str, Any]:
    """Names of the special tokens, and the chat template. Raises InvalidRequest where the base runs elsewhere."""
    target = await target_of(desk, model or desk.settings.bases[0], key.project)
    if desk.settings.engine == "openai":
        message = "What the tokenizer of a server elsewhere is like is not known here."
        raise InvalidRequest(message, hint="Ask that server.", param="model", code="not_available")
    base = await run_in_threadpool(find_offered, desk, target.base)
    return await run_in_threadpool(read_info, base.folder)


def read_info(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    shown = to_plain(template) if isinstance(template, str) else None
    return {name: _name(config.get(name)) for name in SHOWN} | {"chat_template": shown}


def to_plain(template: str) -> str:
    """The template as plain Jinja renders it too, with names that transformers always gives set to none."""
    plain = GENERATION.sub(lambda tag: "endif" if tag[0].startswith("end") else "if true", template)
    return "".join(f"{{% set {name} = {name} | default(none) %}}" for name in GIVEN if name in template) + plain


def _name(value: Any) -> Any:
    """A token's name; some files write it with its properties."""
    return value.get("content") if isinstance(value, dict) else value
