"""What is trained on the frozen base: the kinds of adapter, each with its numbers. No torch, no paths.

`ADAPTERS` is the table of what there is; `train/adapters.py` makes of each what PEFT trains.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from tunesmith.recipes.method import Part, by_type


class Adapter(Part):
    """What is trained on the frozen base; each kind is a class of its own."""

    type: str
    """The kind of adapter."""

    @property
    def num_virtual(self) -> int:
        """Positions that it takes before each row."""
        return 0


class LoraAdapter(Adapter):
    """Low-rank adapters (Hu et al. 2021) on the base's linear layers."""

    type: Literal["lora"] = "lora"
    """The kind of adapter."""
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Columns of A and rows of B; 16 suffices for small supervised sets (Schulman et al. 2025, "LoRA Without Regret")."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs dropped while training."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the layers to adapt; all-linear is better than attention alone at equal size (ibid.)."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, for ranks above 64 (Kalajdzievski 2023)."""
    use_dora: bool = False
    """Learn the length of each output's weights beside their direction (DoRA, Liu et al. 2024): better at ranks of 8 and less, a
    fifth to a half slower to train. Off, for at rank 16 the gain is small."""


class SoftAdapter(Adapter):
    """Virtual tokens before each row; the base's weights stay as they are."""

    num_virtual_tokens: Annotated[int, Field(ge=1, le=1024)] = 20
    """How many; they take positions, and time at each question. 20 is where the gain levels off (Lester et al. 2021)."""

    @property
    def num_virtual(self) -> int:
        return self.num_virtual_tokens


class PromptAdapter(SoftAdapter):
    """Prompt tuning (Lester et al. 2021): the embeddings of the virtual tokens are learned."""

    type: Literal["prompt"] = "prompt"
    """The kind of adapter."""
    init_text: str | None = None
    """Words whose embeddings they begin as, such as the task's instruction; None takes words of the vocabulary at random, better
    than random numbers (ibid., figure 3b)."""


class PTuningAdapter(SoftAdapter):
    """P-tuning (Liu et al. 2021): a small network computes the embeddings; only what it computes is kept."""

    type: Literal["p_tuning"] = "p_tuning"
    """The kind of adapter."""
    encoder_hidden_size: Annotated[int, Field(ge=1, le=16384)] | None = None
    """Width of the network; None means the base's."""


class PrefixAdapter(SoftAdapter):
    """Prefix tuning (Li and Liang 2021): keys and values of the virtual tokens in every layer are learned."""

    type: Literal["prefix"] = "prefix"
    """The kind of adapter."""
    init_text: str | None = None
    """Words whose keys and values they begin as; None takes words of the vocabulary at random. Never random numbers: those need
    the paper's reparametrisation to learn at all (ibid., section 7.4)."""


class FullAdapter(Adapter):
    """No adapter: all weights train, and the run ends as a new base. Sixteen bytes a weight, where LoRA needs two to four."""

    type: Literal["full"] = "full"
    """The kind of adapter."""


ADAPTERS: dict[str, type[Adapter]] = {
    "lora": LoraAdapter, "prompt": PromptAdapter, "p_tuning": PTuningAdapter, "prefix": PrefixAdapter, "full": FullAdapter,
}
"""A recipe's `adapter.type` -> its fields. The first is the default."""

AnyAdapter = Annotated[SerializeAsAny[Adapter], BeforeValidator(lambda value: by_type(value, ADAPTERS, "adapter kind"))]


def vllm_refuses(adapter: Adapter, quantization: str) -> str | None:
    """Why vLLM would not load what a run with this adapter makes; None when it would. Known before anything is trained."""
    if isinstance(adapter, SoftAdapter):
        return "vLLM loads LoRA adapters only, no virtual tokens"
    if isinstance(adapter, LoraAdapter) and adapter.use_dora:
        return "vLLM loads no DoRA"
    if quantization != "none":
        return f"vLLM has no base in {quantization}, and on the whole one its answers differ a little"
    return None
