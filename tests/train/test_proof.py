"""What is served is what was trained, for each kind of adapter; one wrong tensor, scale or template is found and named."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.data.tokenizer import load_tokenizer
from tunesmith.models.artifact import CONFIG, OURS, WEIGHTS, AdapterInfo, content_hash, read_adapter, read_tensors, save_adapter
from tunesmith.models.catalog import Base
from tunesmith.models.loader import load_base
from tunesmith.recipes.run import parse
from tunesmith.serving.driven import Driven
from tunesmith.serving.embedded import Embedded
from tunesmith.serving.memory import Memory
from tunesmith.serving.processes import EngineOrder, EngineProcess, start_engine
from tunesmith.serving.upstream import Adapter, Upstream
from tunesmith.train import conversations, proof
from tunesmith.train.adapters import peft_config
from tunesmith.train.proof import Asker, Proof, ServedDiffers
from tunesmith.train.score_proof import check_scores, trained_scores

COUNT = 11
"""One of each skill; a skill calls tools."""


class Kept(EngineProcess):
    """An engine that runs already, and goes on when who asks it is done."""

    def __init__(self, process: EngineProcess):
        vars(self).update(vars(process))

    async def stop(self) -> None:
        """Who started it ends it."""


Ask = Callable[[], Upstream]


def engine(base: Base, quantization: str, log: Path) -> Iterator[Ask]:
    order = EngineOrder(base.id, quantization, None, 1, log)
    process = start_engine(order)
    yield lambda: Driven(Embedded(order, started=Kept(process)), memory=Memory())
    asyncio.run(process.stop())


@pytest.fixture(scope="module")
def plain_engine(small_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from engine(small_base, "none", tmp_path_factory.mktemp("engine") / "log")


@pytest.fixture(scope="module")
def nf4_engine(small_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from engine(small_base, "nf4", tmp_path_factory.mktemp("engine") / "log")


def trained(
    base: Base, folder: Path, adapter: dict, quantization: str = "none", **more: Any
) -> tuple[torch.nn.Module, AdapterInfo]:
    """A model with an adapter of which every tensor is random, and the adapter as it is saved."""
    from peft import get_peft_model

    torch.manual_seed(1)
    recipe = parse({"base": base.id, "quantization": quantization, "adapter": adapter, "data": {"train": "none.jsonl"}} | more)
    head = "score" if recipe.method.type == "reward" else "words"
    model = get_peft_model(load_base(base, quantization, head=head), peft_config(recipe, base))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model, save_adapter(model, folder / "adapter", base, recipe)


def checked(base: Base, model: torch.nn.Module, info: AdapterInfo, ask: Ask, template: str | None = None) -> Proof:
    tokenizer = load_tokenizer(base.folder)
    tokenizer.chat_template = template or tokenizer.chat_template
    shown = conversations.of_skills(tokenizer, COUNT, base.max_positions - info.num_virtual)
    adapter = Adapter(Path(info.path), read_told(info), info.quantization)
    return proof.check(model, base, adapter, shown, ask(), "cpu", num_virtual=info.num_virtual)


def read_told(info: AdapterInfo) -> str:
    return str(json.loads((Path(info.path) / OURS).read_text())["content_hash"])


def told_again(info: AdapterInfo) -> None:
    """The adapter's own description, made anew: as if what lies there had been saved so."""
    folder = Path(info.path)
    config = json.loads((folder / CONFIG).read_text())
    hashed = {"rank": info.rank, "alpha": float(config["lora_alpha"]), "targets": info.targets,
              "scaling": config["lora_alpha"] / info.rank, "base_revision": info.base_revision}  # fmt: skip
    told = replace(info, content_hash=content_hash(read_tensors(folder / WEIGHTS), hashed))
    (folder / OURS).write_text(json.dumps(asdict(told)))
    read_adapter(folder)


KINDS = {
    "lora": {"rank": 4},
    "rslora": {"rank": 4, "use_rslora": True},
    "dora": {"rank": 4, "use_dora": True},
    "prompt": {"type": "prompt", "num_virtual_tokens": 5},
    "p_tuning": {"type": "p_tuning", "num_virtual_tokens": 5},
    "prefix": {"type": "prefix", "num_virtual_tokens": 5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_is_served_as_it_was_trained(
    kind: str, small_base: Base, plain_engine: Ask, tmp_path: Path
) -> None:
    found = checked(small_base, *trained(small_base, tmp_path, KINDS[kind]), plain_engine)
    assert found.conversations == COUNT
    assert found.prompts == COUNT
    assert found.tokens > 200
    assert found.answer_tokens > 20
    assert 0 < found.worst < 1e-4


@pytest.mark.parametrize("kind", ["lora", "dora", "prefix"])
def test_an_adapter_on_an_nf4_base_is_proven_on_an_nf4_base(
    kind: str, small_base: Base, nf4_engine: Ask, tmp_path: Path
) -> None:
    assert checked(small_base, *trained(small_base, tmp_path, KINDS[kind], "nf4"), nf4_engine).worst < 1e-4


def test_one_tensor_that_was_saved_otherwise_is_named(small_base: Base, plain_engine: Ask, tmp_path: Path) -> None:
    model, info = trained(small_base, tmp_path, {"rank": 4})
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    tensors = load_file(Path(info.path) / WEIGHTS)
    tensors[name][0, 0] += 0.5
    save_file(tensors, Path(info.path) / WEIGHTS)
    with pytest.raises(ServedDiffers, match=f"was changed after it was saved.*The tensor {name} was saved otherwise"):
        checked(small_base, model, info, plain_engine)
    told_again(info)
    with pytest.raises(ServedDiffers, match=rf"log-probabilities are .* The tensor {name} was saved otherwise") as caught:
        checked(small_base, model, info, plain_engine)
    assert caught.value.code == "served_differs"


def test_a_scale_that_was_saved_otherwise_is_named(small_base: Base, plain_engine: Ask, tmp_path: Path) -> None:
    model, info = trained(small_base, tmp_path, {"rank": 4, "alpha": 8})
    config = json.loads((Path(info.path) / CONFIG).read_text())
    (Path(info.path) / CONFIG).write_text(json.dumps(config | {"lora_alpha": 9}))
    told_again(info)
    with pytest.raises(ServedDiffers, match=r"The scale of \S+_proj is saved as 2.25, and was 2 in training"):
        checked(small_base, model, info, plain_engine)


def test_another_template_is_found_by_the_first_token_that_differs(small_base: Base, plain_engine: Ask, tmp_path: Path) -> None:
    model, info = trained(small_base, tmp_path, {"rank": 4})
    template = load_tokenizer(small_base.folder).chat_template
    other = template.replace("<|im_start|>' + message.role", "<|im_start|> ' + message.role")
    assert other != template
    with pytest.raises(ServedDiffers, match=r"Conversation 1 is rendered otherwise .* was id \d+ in training.*chat template"):
        checked(small_base, model, info, plain_engine, other)


def test_a_reward_model_gives_the_scores_that_it_was_trained_to_give(small_base: Base, plain_engine: Ask, tmp_path: Path) -> None:
    model, info = trained(small_base, tmp_path, {"rank": 4}, method={"type": "reward"})
    assert info.kind == "reward"
    tokenizer = load_tokenizer(small_base.folder)
    shown = conversations.of_skills(tokenizer, COUNT, small_base.max_positions)
    adapter = Adapter(Path(info.path), info.content_hash)
    found = check_scores(model, small_base, adapter, shown, plain_engine(), "cpu")
    assert (found.conversations, found.rows) == (COUNT, COUNT)
    assert 0 < found.worst < 1e-4
    assert len({round(score, 3) for scores in trained_scores(model, shown, "cpu") for score in scores}) > 5
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if "score" in name and value.requires_grad)[0, 0] += 1
    with pytest.raises(ServedDiffers, match=r"scores are .* The tensor base_model.model.score.weight was saved otherwise"):
        check_scores(model, small_base, adapter, shown, plain_engine(), "cpu")
    asker = Asker(plain_engine(), small_base.id, adapter, 256)
    with pytest.raises(ServedDiffers, match="it gives scores, and no answers"):
        asker.all(shown[:1], asker.conversation)
    plain = trained(small_base, tmp_path / "plain", {"rank": 4})[1]
    with pytest.raises(ServedDiffers, match="is no reward model"):
        check_scores(model, small_base, Adapter(Path(plain.path), plain.content_hash), shown, plain_engine(), "cpu")
