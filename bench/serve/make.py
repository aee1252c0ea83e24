"""Makes what is measured on, in a process of its own so that the bench itself imports no torch: bases and random adapters.

    python -m bench.serve.make FOLDER --bases tiny 135m --many 300

FOLDER/bases/<name>/                random weights of a known shape (the built-in base is used where it lies)
FOLDER/adapters/<name>/r8-0/ ...    all linear layers, B not zero; as our trainer saves them, so PEFT and vLLM load them too
FOLDER/adapters/<name>/many/000/ ...     rank 8, for the run with many adapters
"""

import argparse
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from bench.serve.bases import ADAPTERS, FOUR, SHAPES, base_folder, base_id
from tunesmith.models.artifact import save_adapter
from tunesmith.models.catalog import Base, find_base
from tunesmith.paths import TINY
from tunesmith.recipes.run import Recipe

SHAPER = Path(__file__).parents[1] / "make_shaped_model.py"


def make_base(folder: Path, name: str) -> Base:
    home = base_folder(folder, name)
    if not (home / "tokenizer.json").exists():
        if name in SHAPES:
            subprocess.run([sys.executable, str(SHAPER), SHAPES[name], str(home)], check=True, stdout=sys.stderr)
        else:
            make_untrained(home)
    return find_base(base_id(folder, name))


def make_untrained(home: Path) -> None:
    """The built-in base's shape and tokenizer, weights as they are before training."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY), dtype=torch.float32).save_pretrained(home)
    for name in ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json"):
        shutil.copy(TINY / name, home / name)


def adapted(base: Base, rank: int) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    lora = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    return get_peft_model(model, lora)


def wanted(folder: Path, name: str, many: int) -> Iterator[tuple[Path, int]]:
    """Folder and rank of each adapter that is not there yet, one rank after the other."""
    home = folder / "adapters" / name
    asked = [(home / adapter, rank) for adapter, rank in ADAPTERS.items() if name == "tiny" or adapter in FOUR]
    asked += [(home / "many" / f"{number:03d}", 8) for number in range(many)]
    return (pair for pair in sorted(asked, key=lambda pair: pair[1]) if not (pair[0] / "artifact.json").exists())


def make_adapters(folder: Path, base: Base, name: str, many: int) -> None:
    recipe = Recipe.model_validate({"base": base.id, "data": {"train": "none.jsonl"}})
    model, made = None, 0
    for path, rank in wanted(folder, name, many):
        if made != rank or model is None:
            model, made = adapted(base, rank), rank
        torch.manual_seed(zlib.crc32(path.name.encode()))
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.normal_(0, 0.02)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_adapter(model, path, base, recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bases", nargs="+", default=["tiny"])
    parser.add_argument("--many", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    for name in args.bases:
        base = make_base(args.folder, name)
        if name != "untrained":
            make_adapters(args.folder, base, name, args.many)


if __name__ == "__main__":
    main()
