"""What the tests of this room share: targets, questions, and how to read what comes back."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base
from tunesmith.serving.answer import Answer
from tunesmith.serving.driven import Driven
from tunesmith.serving.routing import Adapter, Router, Target, base_target

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 8}


def adapter_of(info: AdapterInfo) -> Adapter:
    return Adapter(Path(info.path), info.content_hash, info.quantization)


def tuned(base: Base, info: AdapterInfo, name: str = "ft:tunesmith/tiny:local:my model:0123abcd") -> Target:
    return Target(name, base.id, info.quantization, adapter_of(info))


async def body_of(answer: Answer) -> tuple[int, Any]:
    return answer.status, json.loads(await answer.read())


async def ask(router: Router, target: Target, **more: Any) -> tuple[int, Any]:
    return await body_of(await router.chat(target, CHAT | more))


def said(answer: tuple[int, Any]) -> str:
    status, body = answer
    assert status == 200, body
    return str(body["choices"][0]["message"]["content"])


async def stream_of(answer: Answer) -> tuple[str, set[str]]:
    """The whole text of a stream that ended well, and every name that its events gave the model."""
    assert answer.status == 200
    events = b"".join([chunk async for chunk in answer.chunks()]).decode().strip().split("\n\n")
    assert events[-1] == "data: [DONE]", events[-1]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    return text, {chunk["model"] for chunk in chunks}


def engines(router: Router, base: Base) -> list[Driven]:
    """The engines of a base at full precision."""
    found = [each for each in router._replicas(base_target(base.id)).upstreams if isinstance(each, Driven)]
    assert found
    return found


def kill(engine: Driven) -> int:
    """Kills an engine that runs; its process id."""
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def is_running(pid: int) -> bool:
    """A process that has ended and waits to be reaped does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
