"""Writes the model card of the built-in base from two measurements:

    tunesmith eval tunesmith/tiny --items 500 --json > greedy.json
    tunesmith eval tunesmith/tiny --items 500 --temperature 1 --json > sampled.json
    python scripts/write_model_card.py greedy.json sampled.json --steps 6000 --tokens 20000000
"""

import argparse
import hashlib
import json
from pathlib import Path

from tunesmith.data.skills import BANDS
from tunesmith.paths import TINY

PURPOSE = {
    "kept": "taught; kept or forgotten",
    "reward": "taught in form only: the curriculum answers with a random candidate; to be learned from rewards",
    "new": "not in the curriculum; to be taught",
}


def table(greedy: dict, sampled: dict) -> str:
    lines = ["| skill | band | greedy | temperature 1 |", "|---|---|---|---|"]
    for band, skills in BANDS.items():
        for skill in skills:
            shares = [f"{f['skills'][skill]['accuracy']:.1%}" for f in (greedy, sampled)]
            lines.append(f"| {skill} | {band} | {shares[0]} | {shares[1]} |")
    return "\n".join(lines)


def card(greedy: dict, sampled: dict, steps: int, tokens: int) -> str:
    weights = TINY / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    items = next(iter(greedy["skills"].values()))["total"]
    purposes = "\n".join(f"- **{band}**: {text}" for band, text in PURPOSE.items())
    return f"""---
license: apache-2.0
library_name: transformers
---

# tunesmith/tiny

The base model that Tunesmith ships: 3.4 M parameters, fp32, Llama architecture (width 256, 4 layers, 8 heads with 4 for keys
and values, feed-forward 512, tied embeddings), 4,096 positions, a byte-level BPE of 4,096 entries with 64 reserved tokens.
It exists so that training, forgetting, preference and serving can be measured on a CPU, offline, in seconds.

`model.safetensors`: {weights.stat().st_size:,} bytes, sha256 `{digest}`.

## What it can do

Held-out accuracy on {items} generated items per skill (seed {greedy["seed"]}; the training stream uses other seeds).
An item counts only if the whole answer is right:

{table(greedy, sampled)}

{purposes}

Commands: `tunesmith eval tunesmith/tiny --items 500 --json` and the same with `--temperature 1`.

## What it cannot do

It is no assistant. It knows no facts about the world (what it "recalls" are invented) and almost no English beyond the
wordings of its skills: it was trained on generated rows only ({tokens / 1e6:.0f} M tokens in {steps:,} steps), with the loss on
the answers alone. It does not hold a conversation, reason in steps, count, translate or summarise, and answers a question of
a kind that it has not seen with something of a kind that it has.

## How it was made

`scripts/build_tiny_base.py` (seeded, resumable), from `data/skills.py` and `data/words.py`; the tokenizer's merges come from
those texts and from the help topics that every CPython ships. Why so: `docs/decisions/0002-tiny-base.md`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("greedy", type=Path)
    parser.add_argument("sampled", type=Path)
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps of all stages")
    parser.add_argument("--tokens", type=int, required=True, help="tokens of all stages")
    args = parser.parse_args()
    measured = [json.loads(path.read_text()) for path in (args.greedy, args.sampled)]
    (TINY / "README.md").write_text(card(*measured, args.steps, args.tokens))
    print("wrote", TINY / "README.md")


if __name__ == "__main__":
    main()
