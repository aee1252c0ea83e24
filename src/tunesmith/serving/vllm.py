"""vLLM in an environment of its own, as a child that only this desk reaches. Never imported: spoken to over HTTP on loopback.

What was found by running it (0.32 and 0.33) stands beside the flag or the rule that follows from it.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import EngineFailed
from tunesmith.models.catalog import Base
from tunesmith.serving.client import Client
from tunesmith.serving.memory import cpu_cache_gib
from tunesmith.serving.processes import EngineProcess, free_port, new_key, start_foreign
from tunesmith.serving.runtime_lora import load_lora, unload_lora
from tunesmith.serving.upstream import Adapter, State
from tunesmith.serving.vllm_adapters import lay_out, preflight

START_SECONDS = 1800.0
"""Longest wait: a large base is compiled and captured after it was read."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank may be."""
BATCH_ADAPTERS = 8
"""Most adapters in one batch; each costs memory beside the base."""
STAGES = (
    ("Application startup complete", "ready to answer", 0.95),
    ("KV cache size", "cache", 0.8),
    ("Loading weights took", "warm-up", 0.6),
    ("Starting to load model", "weights", 0.4),
    ("Initializing a V1 LLM engine", "engine", 0.2),
)
"""Words in its log -> what it does now, and how far its start is. The latest first."""
PARSERS = (("[TOOL_CALLS]", "mistral"), ("<|python_tag|>", "llama3_json"), ("<tool_call>", "hermes"))
"""Mark in a base's chat template -> vLLM's parser of the calls that it makes."""
RUNNING = re.compile(r"^vllm:num_requests_running\{[^}]*\} (\S+)", re.MULTILINE)
WAITING = re.compile(r"^vllm:num_requests_waiting\{[^}]*\} (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class VllmOrder:
    """What to start."""

    base: Base
    python: Path
    """Of the environment that vLLM lies in."""
    adapters: Path
    """Folder of ours for what it loads; emptied at each start."""
    log: Path
    max_adapters: int
    max_lora_rank: int
    tensor_parallel: int
    quantization: str | None
    nf4_on_full: bool
    """Serve adapters that were trained on NF4 on the full-precision base: not quite what was trained."""
    drain_seconds: float
    has_gpu: bool
    gpus: str | None
    """Numbers of its GPUs, such as `0,1`; None for whichever it takes."""


class Vllm:
    """A `Kind`."""

    start_seconds = START_SECONDS

    def __init__(self, order: VllmOrder, need_bytes: int = 0):
        self._order = order
        self.label = f"vLLM for {order.base.id}"
        self.model = order.base.id
        self.need_bytes = need_bytes
        self.log_hint = f"See {order.log}."

    def launch(self) -> tuple[EngineProcess | None, Client]:
        shutil.rmtree(self._order.adapters, ignore_errors=True)
        port, key = free_port(), new_key()
        process = start_foreign(command(self._order, port, key), self._order.log, environment(self._order), key)
        return process, Client(self.label, base_url=f"http://127.0.0.1:{port}", key=key)

    async def state(self, client: Client, process: EngineProcess | None) -> State:
        """Ready when it is healthy and lists the base; how much it does is read off its metrics."""
        try:
            status, _ = await client.text("GET", "/health")
            if status == 200 and self.model in await self.models(client):
                text = await self.metrics(client)
                return State("ready", 1.0, "", _sum(RUNNING, text), _sum(WAITING, text))
        except EngineFailed:
            pass  # nobody listens yet
        return stage_of(self._order.log)

    async def models(self, client: Client) -> list[str]:
        return [str(model["id"]) for model in (await client.expect("GET", "/v1/models"))["data"]]

    async def load(self, client: Client, adapter: Adapter) -> None:
        """Raises InvalidRequest with the reason for an adapter that vLLM cannot serve, before it is asked to."""
        preflight(adapter, max_rank=self._order.max_lora_rank, nf4_on_full=self._order.nf4_on_full, python=self._order.python)
        folder = lay_out(adapter, self._order.adapters, served_name=self.model)
        await load_lora(client, adapter.name, folder, self.label)

    async def unload(self, client: Client, adapter: Adapter) -> None:
        """The folder stays until the next start: vLLM may read it again."""
        await unload_lora(client, adapter.name)

    async def metrics(self, client: Client) -> str:
        return (await client.text("GET", "/metrics"))[1]

    async def set_threads(self, client: Client, num_threads: int) -> None:
        """It binds its threads once, at start."""


def command(order: VllmOrder, port: int, key: str) -> list[str]:
    """The command line. Not the `vllm` program: the CPU build's does not start, for it looks for a package of another name."""
    parser = tool_parser(order.base.folder)
    return [
        str(order.python), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(order.base.folder),
        "--served-model-name", order.base.id,
        "--host", "127.0.0.1", "--port", str(port), "--api-key", key,
        "--dtype", "bfloat16" if order.has_gpu else "float32",
        "--enable-lora",
        "--max-loras", str(min(BATCH_ADAPTERS, order.max_adapters)),
        "--max-cpu-loras", str(order.max_adapters),
        "--max-lora-rank", str(order.max_lora_rank),
        "--shutdown-timeout", str(int(order.drain_seconds)),
        *(["--tensor-parallel-size", str(order.tensor_parallel)] if order.tensor_parallel > 1 else []),
        *(["--quantization", order.quantization] if order.quantization else []),
        *(["--enable-auto-tool-choice", "--tool-call-parser", parser] if parser else []),
    ]


def environment(order: VllmOrder) -> dict[str, str]:
    """What is set for it beside our own environment."""
    return {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        **({} if order.has_gpu else {"VLLM_CPU_KVCACHE_SPACE": f"{cpu_cache_gib():g}"}),
        **({"CUDA_VISIBLE_DEVICES": order.gpus} if order.gpus is not None else {}),
    }


def tool_parser(folder: Path) -> str | None:
    """The parser that fits the base's chat template; None when it makes no calls that vLLM could read."""
    template = folder / "chat_template.jinja"
    if template.is_file():
        text = template.read_text(encoding="utf-8")
    else:
        config = folder / "tokenizer_config.json"
        text = str(json.loads(config.read_text(encoding="utf-8")).get("chat_template", "")) if config.is_file() else ""
    return next((parser for mark, parser in PARSERS if mark in text), None)


def stage_of(log: Path) -> State:
    """How far a start is, by its log."""
    text = log.read_text(errors="replace") if log.exists() else ""
    stage, progress = next(((stage, progress) for words, stage, progress in STAGES if words in text), ("imports", 0.0))
    return State("loading", progress, stage)


def _sum(pattern: re.Pattern[str], text: str) -> int:
    return int(sum(float(value) for value in pattern.findall(text)))
