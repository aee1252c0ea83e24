"""What a base's config.json says of its size: its linear layers, its other parameters, its attention. One function per
architecture.

Reads configurations, never weights; knows no memory and no time. The configurations of the models that people name are shipped
(`assets/models.jsonl`); of a local folder its own is read.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.errors import InvalidRequest, NotFound
from tunesmith.paths import TINY

MODELS = Path(__file__).parent / "assets" / "models.jsonl"

Config = dict[str, Any]


class Linear(NamedTuple):
    """One linear layer, which LoRA adapts and a quantization packs."""

    name: str
    inputs: int
    outputs: int
    has_bias: bool = False


@dataclass(frozen=True)
class Shape:
    """A causal language model as numbers. A layer is one decoder block; all are alike."""

    id: str
    family: str
    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    feed_forward: int
    """Width of the feed-forward layer that one token passes: of all its active experts together."""
    vocabulary: int
    is_tied: bool
    """The head is the embedding."""
    max_positions: int
    linears: tuple[Linear, ...]
    """Of one layer."""
    others: int
    """Parameters of one layer that are not in its linear layers: norms, experts (transformers keeps them as 3-D tensors)."""
    outside: int
    """Parameters outside the layers that are no embedding and no head: the last norm."""
    active_others: int
    """Of `others`, those that one token is multiplied by: the router and the active experts."""
    active_experts: int
    """That one token passes; 0 without experts."""
    window: int | None
    """Tokens that a layer with sliding attention sees."""
    num_windowed: int
    """Layers with sliding attention."""

    @property
    def quantizable(self) -> int:
        """Weights that a quantization packs: those of the linear layers, the head excepted."""
        return self.num_layers * sum(each.inputs * each.outputs for each in self.linears)

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def num_parameters(self) -> int:
        """All, tied ones once."""
        biases = sum(each.outputs for each in self.linears if each.has_bias)
        heads = self.embedding * (1 if self.is_tied else 2)
        return self.quantizable + self.num_layers * (biases + self.others) + self.outside + heads

    @property
    def multiplied(self) -> int:
        """Parameters that one token is multiplied by in a forward pass, without the head: the N of 2N FLOPs."""
        return self.quantizable + self.num_layers * self.active_others

    @property
    def largest_linear(self) -> int:
        return max(each.inputs * each.outputs for each in self.linears)

    def lora(self, rank: int, targets: str | tuple[str, ...] = "all-linear") -> int:
        """Parameters of LoRA's A and B on `targets`. Raises InvalidRequest if no layer has such a name."""
        adapted = self.adapted(targets)
        return self.num_layers * rank * sum(each.inputs + each.outputs for each in adapted)

    def adapted(self, targets: str | tuple[str, ...] = "all-linear") -> tuple[Linear, ...]:
        if targets == "all-linear":
            return self.linears
        found = tuple(each for each in self.linears if each.name in targets)
        if not found:
            names = ", ".join(each.name for each in self.linears)
            raise InvalidRequest(f"{self.id} has none of these layers: {', '.join(targets)}.", hint=f"It has {names}.")
        return found

    def kv_bytes(self, tokens: int, bytes_each: float = 2) -> int:
        """Bytes of the key-value cache of one sequence; a layer with sliding attention keeps its window only."""
        seen = min(tokens, self.window) if self.window else tokens
        kept = (self.num_layers - self.num_windowed) * tokens + self.num_windowed * seen
        return int(2 * self.num_kv_heads * self.head_dim * bytes_each * kept)


def find_shape(name: str) -> Shape:
    """The model named `name`: the built-in base, a local folder, or a shipped one by its hub id or the last part of it, in any
    case.

    Raises NotFound with like names, InvalidRequest for a configuration of an unknown architecture.
    """
    path = Path(name).expanduser()
    if name == "tunesmith/tiny":
        return of_folder(TINY, name)
    if (path / "config.json").is_file():
        return of_folder(path, name)
    for ids, config in shipped():
        if any(name.lower() in (known.lower(), known.lower().split("/")[1]) for known in ids):
            return of_config(config, ids[0])
    wanted = name.lower().split("/")[-1][:5]
    like = [ids[0] for ids, _ in shipped() if wanted in ids[0].lower()] or [ids[0] for ids, _ in shipped()]
    raise NotFound(
        f"No configuration of {name!r} is shipped, and there is no such folder.",
        hint=f"Known are {', '.join(like[:12])}; or name a folder with its config.json.", param="base", code="model_not_found",
    )


@functools.cache
def shipped() -> tuple[tuple[tuple[str, ...], Config], ...]:
    """Ids of each shipped model, the first of which is its name, and its configuration."""
    lines = [json.loads(line) for line in MODELS.read_text(encoding="utf-8").splitlines()]
    return tuple((tuple(line["ids"]), line["config"]) for line in lines)


def of_folder(folder: Path, name: str = "") -> Shape:
    """The shape that a folder's config.json tells. Raises InvalidRequest."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{folder}/config.json cannot be read: {error}.", hint="Name the folder of a base.") from error
    return of_config(config, name or str(folder))


def of_config(config: Config, name: str) -> Shape:
    """Raises InvalidRequest for an architecture that has no function here, or a field that is missing."""
    text = config.get("text_config", config)
    family = str(text.get("model_type"))
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InvalidRequest(f"{name}: no plan is made for the architecture {family!r}.", hint=f"There are plans for {known}.")
    try:
        return FAMILIES[family](text, name)
    except KeyError as error:
        raise InvalidRequest(f"{name}: config.json lacks {error}.", hint="Is it a causal language model?") from error


def _llama(config: Config, name: str) -> Shape:
    """Llama and Mistral: grouped heads, gated feed-forward, two norms, no biases unless the configuration says so."""
    return _gated(config, name, attention_bias=bool(config.get("attention_bias")))


def _qwen2(config: Config, name: str) -> Shape:
    """Llama with biases on query, key and value."""
    return _gated(config, name, qkv_bias=True)


def _qwen3(config: Config, name: str) -> Shape:
    """Llama with a norm on each head's query and key."""
    return _gated(config, name, head_norms=True, attention_bias=bool(config.get("attention_bias")))


def _gemma2(config: Config, name: str) -> Shape:
    """Four norms a layer; every second layer sees a window."""
    return _gated(config, name, num_norms=4, tied=True)


def _gemma3(config: Config, name: str) -> Shape:
    """Gemma 2 with norms on query and key; five layers of six see a window."""
    return _gated(config, name, num_norms=4, head_norms=True, tied=True)


def _qwen3_moe(config: Config, name: str) -> Shape:
    return _gated(config, name, head_norms=True, experts=config["num_experts"], expert_width=config["moe_intermediate_size"])


def _mixtral(config: Config, name: str) -> Shape:
    return _gated(config, name, experts=config["num_local_experts"], expert_width=config["intermediate_size"])


def _gated(
    config: Config, name: str, *, num_norms: int = 2, head_norms: bool = False, attention_bias: bool = False,
    qkv_bias: bool = False, tied: bool = False, experts: int = 0, expert_width: int = 0,
) -> Shape:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    width, keys = heads * head_dim, kv_heads * head_dim
    biased = attention_bias or qkv_bias
    attention: tuple[Linear, ...] = (
        Linear("q_proj", hidden, width, biased), Linear("k_proj", hidden, keys, biased), Linear("v_proj", hidden, keys, biased),
        Linear("o_proj", width, hidden, attention_bias),
    )
    norms = num_norms * hidden + (2 * head_dim if head_norms else 0)
    active = config.get("num_experts_per_tok", 0)
    if experts:
        one, router = 3 * hidden * expert_width, hidden * experts
        linears, others, active_others = attention, norms + router + experts * one, router + active * one
        feed_forward = active * expert_width
    else:
        feed_forward, others, active_others = config["intermediate_size"], norms, 0
        biased = bool(config.get("mlp_bias"))
        linears = (
            *attention, Linear("gate_proj", hidden, feed_forward, biased), Linear("up_proj", hidden, feed_forward, biased),
            Linear("down_proj", feed_forward, hidden, biased),
        )
    return Shape(
        id=name, family=config["model_type"], num_layers=config["num_hidden_layers"], hidden=hidden, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=head_dim, feed_forward=feed_forward, vocabulary=config["vocab_size"],
        is_tied=bool(config.get("tie_word_embeddings", tied)), max_positions=config["max_position_embeddings"], linears=linears,
        others=others, outside=hidden, active_others=active_others, active_experts=active if experts else 0, **_window(config),
    )


def _window(config: Config) -> dict[str, Any]:
    """`layer_types` if there is one, else every n-th layer sees all."""
    window, layers = config.get("sliding_window"), config["num_hidden_layers"]
    if not window or config.get("use_sliding_window") is False:
        return {"window": None, "num_windowed": 0}
    every = config.get("sliding_window_pattern") or {"gemma2": 2, "gemma3_text": 6}.get(config["model_type"], 0)
    kinds = config.get("layer_types")
    if kinds:
        return {"window": window, "num_windowed": kinds.count("sliding_attention")}
    return {"window": window, "num_windowed": layers - layers // every if every else layers}


def _gpt_neox(config: Config, name: str) -> Shape:
    """Pythia: one layer for query, key and value; biases everywhere; norms with a weight and a bias."""
    hidden, heads, width = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
    bias = bool(config.get("attention_bias", True))
    linears = (
        Linear("query_key_value", hidden, 3 * hidden, bias), Linear("dense", hidden, hidden, bias),
        Linear("dense_h_to_4h", hidden, width, True), Linear("dense_4h_to_h", width, hidden, True),
    )
    return Shape(
        id=name, family="gpt_neox", num_layers=config["num_hidden_layers"], hidden=hidden, num_heads=heads, num_kv_heads=heads,
        head_dim=hidden // heads, feed_forward=width, vocabulary=config["vocab_size"],
        is_tied=bool(config.get("tie_word_embeddings", False)), max_positions=config["max_position_embeddings"], linears=linears,
        others=4 * hidden, outside=2 * hidden, active_others=0, active_experts=0, window=None, num_windowed=0,
    )


FAMILIES: dict[str, Callable[[Config, str], Shape]] = {
    "llama": _llama, "mistral": _llama, "qwen2": _qwen2, "qwen3": _qwen3, "gemma2": _gemma2, "gemma3_text": _gemma3,
    "qwen3_moe": _qwen3_moe, "mixtral": _mixtral, "gpt_neox": _gpt_neox,
}
"""A configuration's `model_type` -> what makes its shape."""
