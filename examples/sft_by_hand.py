"""Supervised fine-tuning, flat and complete: what Tunesmith's training does, with torch and PEFT alone.

    python examples/sft_by_hand.py [--epochs 4]

Takes the built-in base and the support desk's rows, masks the loss to the answers, trains a LoRA, saves it, loads it again and
asks a question. The machine proper adds NF4, checkpoints, exact resuming, held-out losses and events: see docs/training.md.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

PACKAGE = Path(__file__).parent.parent / "src" / "tunesmith"
BASE, ROWS = PACKAGE / "models" / "tiny", PACKAGE / "data" / "assets" / "support_desk" / "train.jsonl"
IGNORED = -100
BATCH, PEAK, SEED = 8, 5e-3, 42

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=4, help="20 teach the whole desk; 4 show how it goes")
parser.add_argument("--rows", type=int, default=320)
parser.add_argument("--out", type=Path, default=Path("support-desk-adapter"))
args = parser.parse_args()
torch.manual_seed(SEED)

# The base, frozen, with its dtype said aloud; the adapter on every linear layer but the head.
tokenizer = AutoTokenizer.from_pretrained(BASE, local_files_only=True)
model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, local_files_only=True, use_safetensors=True)
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


def render(messages, **options):
    """The template's text, as ids."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode(messages):
    """Ids and labels: the answer trains, up to the token that ends it; the prompt does not."""
    prompt, whole = render(messages[:-1], add_generation_prompt=True), render(messages)
    assert whole[: len(prompt)] == prompt, "the template must only append"
    end = len(whole) - whole[::-1].index(tokenizer.eos_token_id)
    ids = whole[:end]
    return ids, [IGNORED] * len(prompt) + ids[len(prompt) :]


def collate(rows):
    """Padded on the right; attention is causal, so the padding is never seen and needs no mask."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in rows])
    return ids, labels


def ask(model, question):
    """The answer by greedy decoding."""
    ids = render([{"role": "user", "content": question}], add_generation_prompt=True)
    prompt = torch.tensor([ids])
    with torch.no_grad():
        out = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    return tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)


# The data: conversations to ids and labels.
conversations = [json.loads(line)["messages"] for line in ROWS.read_text().splitlines()][: args.rows]
rows = [encode(messages) for messages in conversations]
question, right = (message["content"] for message in conversations[0])
print(f"{len(rows)} rows, {sum(len(ids) for ids, _ in rows):,} tokens\nbefore: {question} -> {ask(model, question)!r}")

# The loop: AdamW on the adapter alone, a short memory of gradients, a rate that falls to zero.
trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=PEAK, betas=(0.9, 0.95), weight_decay=0.0)
total = args.epochs * -(-len(rows) // BATCH)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / (0.05 * total + 1), 1 - step / total))
began, step = time.monotonic(), 0
model.train()
for epoch in range(args.epochs):
    order = random.Random(f"{SEED}/{epoch}").sample(range(len(rows)), len(rows))
    for start in range(0, len(rows), BATCH):
        ids, labels = collate([rows[k] for k in order[start : start + BATCH]])
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        step += 1
    print(f"epoch {epoch + 1}: step {step} of {total}, loss {loss.item():.3f}, {time.monotonic() - began:.0f} s")

# The adapter is saved as safetensors, loaded onto a fresh base, and asked.
model.save_pretrained(args.out)
fresh = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, local_files_only=True, use_safetensors=True)
tuned = PeftModel.from_pretrained(fresh, args.out).eval()
print(f"after:  {question} -> {ask(tuned, question)!r}   (right: {right!r})\nsaved in {args.out}")
