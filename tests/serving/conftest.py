"""A base that every engine can serve, vLLM too (heads of 32), and adapters on it; a real OpenAI server elsewhere."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tunesmith.models.artifact import AdapterInfo
from tunesmith.models.catalog import Base, find_base
from tunesmith.paths import TINY
from tunesmith.serving.processes import KEY_VARIABLE, free_port


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "served"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=4096, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
        bos_token_id=None, eos_token_id=4025, pad_token_id=4023,
    )).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, folder / name)
    return find_base(str(folder))


@pytest.fixture(scope="session")
def adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AdapterInfo]:
    """`adapter(seed)`: a saved adapter on `base`, of rank 8 unless told otherwise; the same one for the same arguments."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tunesmith.models.artifact import read_adapter, save_adapter
    from tunesmith.models.loader import load_base
    from tunesmith.recipes.run import Recipe

    root = tmp_path_factory.mktemp("adapters")

    def make(seed: int, rank: int = 8) -> AdapterInfo:
        folder = root / f"{seed}-{rank}"
        if folder.exists():
            return read_adapter(folder)
        torch.manual_seed(seed)
        lora = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
        )
        recipe = Recipe.model_validate({"base": base.id, "data": {"train": "none.jsonl"}})
        return save_adapter(get_peft_model(load_base(base, "none"), lora), folder, base, recipe)

    return make


@contextmanager
def server_elsewhere(base: Base, key: str) -> Iterator[str]:
    """Our own engine on a port of loopback, for whoever knows the key: its address."""
    port = free_port()
    command = [sys.executable, "-m", "tunesmith.engine", "--base", base.id, "--port", str(port), "--threads", "1"]
    child = subprocess.Popen(command, env={**os.environ, KEY_VARIABLE: key})
    try:
        while True:
            assert child.poll() is None, "the engine ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        child.kill()
        child.wait()


def vllm_python() -> Path | None:
    """Of the environment that the tests of vLLM take; None for the one that is installed in the default data directory."""
    named = os.environ.get("TUNESMITH_VLLM_PYTHON")
    return Path(named) if named else None
