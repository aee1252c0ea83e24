"""Builds the base model that Tunesmith ships, `tunesmith/tiny`, from nothing: tokenizer, then weights.

    python scripts/build_tiny_base.py tokenizer                 # minutes; writes tokenizer.json beside the template
    python scripts/build_tiny_base.py train --steps 3680           # one stage; call again to go on from where it stopped
    python scripts/build_tiny_base.py train --steps 1200 --decay   # the learning rate falls to zero
    python scripts/build_tiny_base.py train --steps 560 --decay --lr 2e-3 --reward-share 0.25    # the form of the reward skills

Every batch is a function of (seed, step), so a stage that was killed is resumed from its newest checkpoint in `--work`
with the same data. Loss is taken on the answer's tokens only. Skills unlock from easy to hard: the next one joins when
those before it are mostly right, and a skill that is still wrong is drawn more often.
"""

import argparse
import json
import pydoc_data.topics
import random
import re
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tunesmith.data import words
from tunesmith.data.skills import BANDS, SKILLS, Item, _item, fact, generate

HOME = Path(__file__).parent.parent / "src/tunesmith/models/tiny"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>"]
NUM_RESERVED = 64
# Words, single digits, runs of punctuation: the pattern of Qwen2's tokenizer.
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Easy to hard; a name joins the mixture when the mean accuracy of those before it passes UNLOCK.
ORDER = ["copy", "first", "last", "arithmetic", "vocabulary", "call_tool", "persona", "capitalize", "fill_json", "pick_fact",
         "reverse", "sort", "recall", "recall_in_prose", "lookup"]
UNLOCK = 0.7
TOOL_SHARE = 0.3  # a tool prompt is eight times as long as the others


def prose() -> str:
    """English that every CPython ships: the topics of `help()`. Used for the tokenizer's merges and for a word list."""
    return "\n".join(pydoc_data.topics.topics.values())


def vocabulary() -> list[str]:
    found = re.findall(r"(?<= )[a-z]{2,12}(?=[ .,])", prose())
    return sorted(set(found))


def build_tokenizer() -> None:
    own = words.WORDS + words.NAMES + words.CITIES
    listed = " ".join(f"{w} {w.capitalize()}\n{w}\n{w.capitalize()}" for w in own)
    texts = [prose()] + [listed] * 12
    for skill in SKILLS:
        for item in generate(skill, 300, seed=1):
            texts += [m["content"] for m in [*item.messages, item.answer]] + ["user\nassistant\nsystem\ntool\n"]
            texts += [json.dumps(t) for t in item.tools]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    added = len(SPECIAL) + len(PLAIN) + NUM_RESERVED
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=4096 - added, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in PLAIN])
    tokenizer.add_special_tokens([f"<|reserved_{i}|>" for i in range(NUM_RESERVED)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=4096,
        clean_up_tokenization_spaces=False)
    fast.chat_template = (HOME / "chat_template.jinja").read_text()
    fast.save_pretrained(HOME)
    # transformers 5 writes a class name that older readers do not know; both know this one.
    notes = HOME / "tokenizer_config.json"
    notes.write_text(notes.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    print("tokenizer:", len(fast), "entries")


def config(tokenizer) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=32, max_position_embeddings=4096, tie_word_embeddings=True, rms_norm_eps=1e-5,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)


class Curriculum:
    """Draws items; remembers how well each skill goes (an exponential mean of teacher-forced exact answers)."""

    def __init__(self, tokenizer, seed: int, accuracy: dict[str, float], reward_share: float):
        self.tokenizer, self.seed, self.accuracy, self.reward_share = tokenizer, seed, accuracy, reward_share
        self.vocabulary = vocabulary()
        self.fillers = sorted(set(self.vocabulary) - set(words.WORDS))

    def item(self, skill: str, rng: random.Random) -> Item:
        if skill == "vocabulary":
            text = " ".join(rng.sample(self.vocabulary, rng.randint(1, 5)))
            return _item(skill, f"Repeat: {text}", text)
        if skill == "recall_in_prose":
            return self.in_prose(rng)
        if skill == "lookup":
            return self.lookup(rng)
        return SKILLS[skill](rng)

    def in_prose(self, rng: random.Random) -> Item:
        """A taught fact, asked for among words that say nothing: what matters is the key."""
        key = rng.choice(words.OBJECTS + words.FOODS)
        asked = rng.sample(self.fillers, rng.randint(3, 9))
        asked.insert(rng.randint(0, len(asked)), key)
        return _item("recall_in_prose", " ".join(asked).capitalize() + "?", fact(key))

    def lookup(self, rng: random.Random) -> Item:
        """Keys and values of several tokens in the passage, and a question that holds one key among other words."""
        keys = rng.sample(self.vocabulary, rng.randint(2, 4))
        values = [" ".join(rng.sample(self.vocabulary, rng.randint(1, 3))) for _ in keys]
        asked = rng.sample(self.vocabulary, rng.randint(2, 6))
        k = rng.randrange(len(keys))
        asked.insert(rng.randint(0, len(asked)), keys[k])
        passage = " ".join(f"{key}: {value}." for key, value in zip(keys, values, strict=True))
        return _item("lookup", f"{passage} {' '.join(asked)}?", values[k])

    def weights(self) -> dict[str, float]:
        active: dict[str, float] = {}
        for skill in ORDER:
            known = self.accuracy.get(skill, 0.0)
            active[skill] = (0.08 + (1 - known)) * (TOOL_SHARE if skill == "call_tool" else 1)
            if known < UNLOCK and sum(self.accuracy.get(s, 0.0) < UNLOCK for s in active) >= 2:
                break
        total = sum(active.values())
        if len(active) >= 6:
            active |= {skill: total * self.reward_share for skill in BANDS["reward"]}
        return active

    def encode(self, item: Item) -> tuple[list[int], int]:
        kwargs = {"tools": item.tools or None, "tokenize": False}
        prompt = self.tokenizer.apply_chat_template(item.messages, add_generation_prompt=True, **kwargs)
        full = self.tokenizer.apply_chat_template([*item.messages, item.taught], **kwargs)
        answer = full[len(prompt):].removesuffix("\n")
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return ids + self.tokenizer(answer, add_special_tokens=False)["input_ids"], len(ids)

    def batches(self, step: int, tokens: int, group: int = 16):
        """The batches of steps `step` to `step + group`, each about `tokens` wide, of rows alike in length."""
        rng = random.Random(f"{self.seed}/{step}")
        weights = self.weights()
        rows, size = [], 0
        while size < tokens * group:
            skill = rng.choices(list(weights), list(weights.values()))[0]
            ids, start = self.encode(self.item(skill, rng))
            rows.append((skill, ids, start))
            size += len(ids)
        rows.sort(key=lambda row: len(row[1]))
        batches, batch = [], []
        for row in rows:
            if batch and len(row[1]) * (len(batch) + 1) > tokens:
                batches.append(batch)
                batch = []
            batch.append(row)
        batches.append(batch)
        rng.shuffle(batches)
        return batches[:group]


def answer_loss(model, batch, pad: int):
    """Mean negative log-likelihood of the answers' tokens, and which rows were right in every token."""
    width = max(len(ids) for _, ids, _ in batch)
    ids_BT = torch.tensor([ids + [pad] * (width - len(ids)) for _, ids, _ in batch])
    mask_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    for row, (_, ids, start) in enumerate(batch):
        mask_BT[row, start - 1: len(ids) - 1] = True
    # Rows are padded on the right and attention is causal, so no padding mask is needed.
    hidden_BTD = model.model(input_ids=ids_BT).last_hidden_state
    logits_NV = model.lm_head(hidden_BTD[mask_BT])
    target_N = ids_BT.roll(-1, 1)[mask_BT]
    loss = torch.nn.functional.cross_entropy(logits_NV, target_N)
    wrong_B = torch.zeros(len(batch)).index_add_(0, mask_BT.nonzero()[:, 0], (logits_NV.argmax(-1) != target_N).float())
    return loss, wrong_B == 0


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton-Schulz steps (Jordan et al. 2024), in fp32.

    torch.optim.Muon does the same in bf16, which a CPU without bf16 units emulates (measured here: 1.8 times the time of a
    whole step). Matrices of one shape are stacked into one product. The update's size is matched to AdamW's:
    0.2 * sqrt(longer side).
    """

    def __init__(self, matrices, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes: dict = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for matrices in shapes.values():
                updates = [self._momentum(p, group["momentum"]) for p in matrices]
                scale = group["lr"] * 0.2 * max(matrices[0].shape) ** 0.5
                for p, update in zip(matrices, orthogonal(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)

    def _momentum(self, p, momentum: float):
        buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)


def orthogonal(x_NAB):
    """The nearest (semi-)orthogonal matrices, roughly: singular values land between 0.7 and 1.2."""
    wide = x_NAB if x_NAB.shape[-2] <= x_NAB.shape[-1] else x_NAB.mT
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide is x_NAB else x.mT


def optimizers(model, lr: float):
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        Muon(matrices, lr=lr),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def train(args) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HOME)
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    model, optims, state = start(tokenizer, work, args)
    curriculum = Curriculum(tokenizer, args.seed, state["accuracy"], args.reward_share)
    first, began, since = state["step"], time.monotonic(), state["tokens"]
    while state["step"] < first + args.steps:
        for batch in curriculum.batches(state["step"], args.tokens):
            set_learning_rate(optims, args, state["step"] - first)
            loss, right_B = answer_loss(model, batch, tokenizer.pad_token_id)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optims:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            for (skill, _, _), right in zip(batch, right_B.tolist(), strict=True):
                curriculum.accuracy[skill] = 0.99 * curriculum.accuracy.get(skill, 0.0) + 0.01 * right
            state["step"] += 1
            state["tokens"] += sum(len(ids) for _, ids, _ in batch)
            if state["step"] % args.log == 0:
                rate = (state["tokens"] - since) / (time.monotonic() - began)
                known = " ".join(f"{s[:5]}={a:.2f}" for s, a in curriculum.accuracy.items())
                print(f"{time.monotonic() - began:6.0f}s step {state['step']} loss {loss.item():.3f} norm {norm.item():.2f} "
                      f"{rate:.0f} tok/s {known}", flush=True)
        if state["step"] % 320 == 0 or state["step"] >= first + args.steps:
            save(model, optims, state, work)
    export(model, tokenizer)


def start(tokenizer, work: Path, args):
    """The model, its optimizers and the state: from the newest checkpoint, else from the shipped weights, else anew."""
    model = LlamaForCausalLM._from_config(config(tokenizer), dtype=torch.float32, attn_implementation="sdpa")
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
    state = {"step": 0, "accuracy": {}, "tokens": 0}
    if (work / "state.json").exists():
        state = json.loads((work / "state.json").read_text())
    weights = work / "model.safetensors"
    source = weights if weights.exists() else HOME / "model.safetensors"
    if source.exists():
        missing, unexpected = model.load_state_dict(load_file(source), strict=False)
        assert not unexpected, unexpected
        assert set(missing) <= {"lm_head.weight"}, missing
        print("resumed from", source, "at step", state["step"])
    optims = optimizers(model, args.lr)
    if (work / "optimizer.safetensors").exists():
        load_moments(optims, load_file(work / "optimizer.safetensors"))
    return model.train(), optims, state


def set_learning_rate(optims, args, done: int) -> None:
    """Up over the first 100 steps of a stage; with --decay, linearly down to zero at its end."""
    scale = min(1.0, (done + 1) / 100)
    if args.decay:
        scale = min(scale, max(0.0, 1 - done / args.steps))
    for optimizer in optims:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * scale


def load_moments(optims, saved) -> None:
    for k, optimizer in enumerate(optims):
        for n, parameter in enumerate(p for g in optimizer.param_groups for p in g["params"]):
            found = {key.split("/")[2]: v.clone() for key, v in saved.items() if key.startswith(f"{k}/{n}/")}
            if found:
                optimizer.state[parameter] = found


def save(model, optims, state, work: Path) -> None:
    """State last, so that a kill between the files repeats at most one interval with newer weights."""
    weights = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    moments = {}
    for k, optimizer in enumerate(optims):
        for n, parameter in enumerate(p for g in optimizer.param_groups for p in g["params"]):
            moments |= {f"{k}/{n}/{name}": v for name, v in optimizer.state[parameter].items()}
    for name, tensors in (("model", weights), ("optimizer", moments)):
        save_file(tensors, work / f"{name}.new")
        (work / f"{name}.new").rename(work / f"{name}.safetensors")
    (work / "state.new").write_text(json.dumps(state))
    (work / "state.new").rename(work / "state.json")


def export(model, tokenizer) -> None:
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(HOME)
    print("wrote", HOME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("tokenizer")
    t = verbs.add_parser("train")
    t.add_argument("--steps", type=int, required=True, help="optimizer steps of this stage")
    t.add_argument("--tokens", type=int, default=3072, help="tokens of a batch")
    t.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    t.add_argument("--seed", type=int, default=0)
    t.add_argument("--threads", type=int, default=2)
    t.add_argument("--log", type=int, default=50)
    t.add_argument("--reward-share", type=float, default=0.04, help="rows of each skill that is taught in form only")
    t.add_argument("--decay", action="store_true", help="let the learning rate fall linearly to zero over this stage")
    t.add_argument("--work", default=".tunesmith/build_tiny", help="folder of the checkpoints")
    args = parser.parse_args()
    if args.verb == "tokenizer":
        build_tokenizer()
    else:
        train(args)


if __name__ == "__main__":
    main()
