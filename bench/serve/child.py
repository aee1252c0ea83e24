"""`generate` in a process of its own, told what to do by lines of JSON on stdin: a static batch, padded on the left.

    {"prompts": [[1, 2], ...], "max_tokens": 64, "adapters": ["r8-0", ...] or null}  ->  {"seconds": 1.2, "tokens": [[...], ...]}

With adapters it is PEFT's `adapter_names`. End tokens are taken out of the generation config: everybody makes as many tokens.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def load(base: Path, adapters: list[Path]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    model.eval()
    if not adapters:
        return model
    mixed = PeftModel.from_pretrained(model, str(adapters[0]), adapter_name=adapters[0].name)
    for path in adapters[1:]:
        mixed.load_adapter(str(path), adapter_name=path.name)
    mixed.eval()
    return mixed


@torch.inference_mode()
def generate(model: Any, prompts: list[list[int]], max_tokens: int, adapters: list[str] | None) -> list[list[int]]:
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    named = {} if adapters is None else {"adapter_names": adapters}
    made = model.generate(
        input_ids=tokens, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False, pad_token_id=0, **named
    )
    return [list(row) for row in made[:, longest:].tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("adapters", type=Path, nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load(args.base, args.adapters)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        start = time.perf_counter()
        made = generate(model, asked["prompts"], asked["max_tokens"], asked["adapters"])
        print(json.dumps({"seconds": time.perf_counter() - start, "tokens": made}), flush=True)


if __name__ == "__main__":
    main()
