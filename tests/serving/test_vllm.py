"""vLLM's command line, its environment and what it refuses are as we found them; none of it is asked here (`test_upstreams`)."""

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.parts import adapter_of, is_running
from tunesmith.errors import InvalidRequest
from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base, find_base
from tunesmith.models.drift import Drift, write_drift
from tunesmith.models.shelf import read_json
from tunesmith.serving.processes import EngineProcess, start_foreign
from tunesmith.serving.vllm import VllmOrder, command, environment, stage_of, tool_parser
from tunesmith.serving.vllm_adapters import lay_out, preflight, problems

Make = Callable[..., AdapterInfo]
PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none", "init_lora_weights": True}


@pytest.fixture
def order(tmp_path: Path) -> VllmOrder:
    return VllmOrder(
        base=dataclasses.replace(find_base("tunesmith/tiny"), id="org/base", folder=tmp_path), python=Path("/v/bin/python"),
        adapters=tmp_path / "adapters", log=tmp_path / "log", max_adapters=16, max_lora_rank=64, tensor_parallel=1,
        quantization=None, nf4_on_full=False, drain_seconds=8, has_gpu=False, gpus=None,
    )


def test_the_command_line_on_a_cpu(order: VllmOrder) -> None:
    assert command(order, 8123, "key") == [
        "/v/bin/python", "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(order.base.folder), "--served-model-name", "org/base",
        "--host", "127.0.0.1", "--port", "8123", "--api-key", "key", "--dtype", "float32",
        "--enable-lora", "--max-loras", "8", "--max-cpu-loras", "16", "--max-lora-rank", "64", "--shutdown-timeout", "8",
    ]
    assert environment(order) == {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
    }


def test_the_command_line_on_gpus_with_all_flags(order: VllmOrder, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{% if tools %}<tool_call>{% endif %}")
    many = dataclasses.replace(order, tensor_parallel=2, quantization="fp8", has_gpu=True, gpus="2,3", max_adapters=4)
    line = command(many, 8123, "key")
    assert line[line.index("--dtype"):] == [
        "--dtype", "bfloat16", "--enable-lora", "--max-loras", "4", "--max-cpu-loras", "4", "--max-lora-rank", "64",
        "--shutdown-timeout", "8", "--tensor-parallel-size", "2", "--quantization", "fp8",
        "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
    ]
    assert environment(many)["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment(many)


@pytest.mark.parametrize(("template", "parser"), [
    ("{{ '[TOOL_CALLS]' }}", "mistral"), ("<|python_tag|>", "llama3_json"), ("<tool_call>", "hermes"), ("plain", None),
])
def test_the_parser_of_calls_follows_from_the_template_wherever_it_stands(
    tmp_path: Path, template: str, parser: str | None
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert tool_parser(tmp_path) == parser


def test_the_log_tells_how_far_a_start_is(tmp_path: Path) -> None:
    log, seen = tmp_path / "log", []
    assert stage_of(log).stage == "imports"
    for line in ("Initializing a V1 LLM engine (v0.32.0)", "Starting to load model /x...", "Loading weights took 0.02 seconds",
                 "CPU KV cache size: 1,048,576 tokens", "Application startup complete."):
        with open(log, "a") as file:
            file.write(line + "\n")
        seen.append(stage_of(log).progress)
    assert seen == sorted(set(seen))
    assert max(seen) < 1


def test_a_plain_lora_has_no_problems() -> None:
    assert problems(PLAIN | {"use_rslora": True, "rank_pattern": {"q_proj": 64}}, max_rank=64) == []


@pytest.mark.parametrize(("fields", "word"), [
    ({"use_dora": True}, "use_dora"), ({"lora_bias": True}, "lora_bias"), ({"bias": "all"}, "biases"),
    ({"modules_to_save": ["lm_head"]}, "lm_head"), ({"init_lora_weights": "pissa"}, "pissa"), ({"r": 128}, "rank 128"),
    ({"rank_pattern": {"q_proj": 65}}, "rank 65"), ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),
    ({"alora_invocation_tokens": [1]}, "alora"), ({"target_parameters": ["experts"]}, "target_parameters"),
])
def test_what_vllm_refuses_is_refused_first_with_the_reason(fields: dict[str, Any], word: str) -> None:
    (reason,) = problems(PLAIN | fields, max_rank=64)
    assert word in reason


def test_an_adapter_of_nf4_is_refused_unless_the_owner_says_otherwise_and_knows_the_drift(adapter: Make, tmp_path: Path) -> None:
    shutil.copytree(adapter(1).path, tmp_path / "adapter")
    trained = dataclasses.replace(adapter_of(adapter(1)), quantization="nf4", path=tmp_path / "adapter")
    with pytest.raises(InvalidRequest, match="trained on an NF4 base") as caught:
        preflight(trained, max_rank=64, nf4_on_full=False, python=Path("/v/bin/python"))
    assert caught.value.code == "adapter_not_supported"
    with pytest.raises(InvalidRequest, match="nobody has measured .*`tunesmith verify .* --on none"):
        preflight(trained, max_rank=64, nf4_on_full=True, python=Path("/v/bin/python"))
    write_drift(trained.path, "none", Drift(0.1, 0.5, 1.0, 1.1, 1000, 32))
    preflight(trained, max_rank=64, nf4_on_full=True, python=Path("/v/bin/python"))


def test_the_folder_for_vllm_names_the_base_as_served_and_outlives_the_model(adapter: Make, base: Base, tmp_path: Path) -> None:
    one = adapter_of(adapter(1))
    folder = lay_out(one, tmp_path / "engine", served_name="org/base")
    assert lay_out(one, tmp_path / "engine", served_name="org/base") == folder
    assert lay_out(one, tmp_path / "engine", served_name="org/other") != folder
    assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == "org/base"
    weights = "adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (one.path / weights).read_bytes()
    assert [path.name for path in (tmp_path / "engine").iterdir() if path.name.startswith(".")] == []


FAMILY = "import subprocess, sys, time; c = subprocess.Popen(['sleep', '600']); print(c.pid, flush=True); time.sleep(600)"
OBEYS = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(1, flush=True); time.sleep(600)"


def start(program: str, log: Path) -> tuple[EngineProcess, int]:
    """A program under the guard, and the number that it printed."""
    process = start_foreign([sys.executable, "-c", program], log, {}, "key")
    while not log.read_text().endswith("\n"):
        time.sleep(0.02)
    return process, int(log.read_text())


async def until_gone(pid: int) -> None:
    while is_running(pid):
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("end", ["stop", "the desk dies", "the guard is killed", "the program is killed"])
async def test_a_foreign_engine_goes_with_all_that_it_started(end: str, tmp_path: Path) -> None:
    process, grandchild = start(FAMILY, tmp_path / "log")
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if end == "the desk dies":
        assert process._child.stdin is not None
        process._child.stdin.close()
        await until_gone(grandchild)
    elif end == "the guard is killed":
        os.kill(process.pid, signal.SIGKILL)
        await until_gone(int(child))
    elif end == "the program is killed":
        os.kill(int(child), signal.SIGKILL)
        await until_gone(process.pid)
        assert "exit status 137" in process.describe_end()
    await process.stop()
    await until_gone(grandchild)


async def test_a_guarded_program_may_end_what_it_has_begun(tmp_path: Path) -> None:
    process, _ = start(OBEYS, tmp_path / "log")
    await process.stop()
    assert process.describe_end().startswith("exit status 7")
