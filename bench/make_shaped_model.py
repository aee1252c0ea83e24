"""Writes a randomly initialised model of a known shape, for measuring speed and memory where no hub is at hand.

    python bench/make_shaped_model.py smollm2-135m .tunesmith/shaped/smollm2-135m

The weights are noise; the tokenizer and template are the built-in base's (its ids are a subset of the shape's vocabulary).
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

from tunesmith.paths import TINY

SHAPES = {
    "smollm2-135m": LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=None, eos_token_id=4025,
        pad_token_id=4023,
    ),
    "pythia-410m": GPTNeoXConfig(
        vocab_size=50304, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        max_position_embeddings=2048, tie_word_embeddings=False, bos_token_id=None, eos_token_id=4025, pad_token_id=4023,
    ),
}
"""From the models' own config.json files on the hub."""


def write(model: torch.nn.Module, folder: Path) -> None:
    """The weights, with the built-in base's tokenizer."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(SHAPES[args.shape], dtype=torch.float32)
    write(model, args.folder)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters in {args.folder}")


if __name__ == "__main__":
    main()
