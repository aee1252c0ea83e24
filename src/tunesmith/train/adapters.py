"""What trains: from a recipe's adapter to PEFT's configuration, how it begins, how it is kept. Nobody else names PEFT's classes.

Knows no rows and no steps.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from peft.tuners.cartridge.utils import prompt_embeddings_from_past_key_values
from transformers import PreTrainedTokenizerBase

from tunesmith.models.artifact import AdapterInfo, save_adapter
from tunesmith.models.catalog import Base
from tunesmith.models.weights import in_dtype
from tunesmith.models.whole import save_whole
from tunesmith.recipes.adapter import Adapter, FullAdapter, LoraAdapter, PrefixAdapter, PromptAdapter, PTuningAdapter
from tunesmith.recipes.method import RewardMethod
from tunesmith.recipes.run import Recipe


def peft_config(recipe: Recipe, base: Base) -> PeftConfig | None:
    """PEFT's configuration of `recipe.adapter` on `base`; None when there is no adapter, and all weights train."""
    config = CONFIGS[type(recipe.adapter)](recipe.adapter)
    if isinstance(recipe.method, RewardMethod) and config is not None:
        config.task_type = "SEQ_CLS"  # PEFT then trains the head `score` whole, and saves it
    return config


def _lora(adapter: LoraAdapter) -> PeftConfig:
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets),
        use_rslora=adapter.use_rslora,
        use_dora=adapter.use_dora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _prompt(adapter: PromptAdapter) -> PeftConfig:
    return PromptTuningConfig(num_virtual_tokens=adapter.num_virtual_tokens, task_type="CAUSAL_LM")


def _p_tuning(adapter: PTuningAdapter) -> PeftConfig:
    return PromptEncoderConfig(
        num_virtual_tokens=adapter.num_virtual_tokens, encoder_hidden_size=adapter.encoder_hidden_size, task_type="CAUSAL_LM"
    )


def _prefix(adapter: PrefixAdapter) -> PeftConfig:
    return PrefixTuningConfig(num_virtual_tokens=adapter.num_virtual_tokens, task_type="CAUSAL_LM")


def _none(adapter: FullAdapter) -> None:
    return None


CONFIGS: dict[type[Adapter], Callable[[Any], PeftConfig | None]] = {
    LoraAdapter: _lora, PromptAdapter: _prompt, PTuningAdapter: _p_tuning, PrefixAdapter: _prefix, FullAdapter: _none,
}


def begin(model: torch.nn.Module, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Makes what TRL built ready to learn: soft prompts begin as words, and columns are counted from a row's own first token;
    without an adapter all weights learn."""
    adapter = recipe.adapter
    if isinstance(adapter, FullAdapter):
        model.requires_grad_(True)
    if isinstance(adapter, PromptAdapter | PrefixAdapter):
        assert isinstance(model, PeftModel)
        ids = _first_words(adapter, tokenizer, recipe.seed)
        _begin_as(model, ids, is_prefix=isinstance(adapter, PrefixAdapter))
    if isinstance(adapter, PromptAdapter | PTuningAdapter):
        assert isinstance(model, PeftModel)
        _count_from_the_row(model, adapter.num_virtual)


def _first_words(adapter: PromptAdapter | PrefixAdapter, tokenizer: PreTrainedTokenizerBase, seed: int) -> torch.Tensor:
    """Token ids [num_virtual]: those of `init_text` again and again, or of the vocabulary by the seed; no special token."""
    count = adapter.num_virtual
    if adapter.init_text:
        ids = tokenizer(adapter.init_text, add_special_tokens=False)["input_ids"]
        return torch.tensor((ids * count)[:count])
    special = set(tokenizer.all_special_ids)
    words = torch.tensor([id for id in range(len(tokenizer)) if id not in special])
    return words[torch.randint(len(words), (count,), generator=torch.Generator().manual_seed(seed))]


@torch.no_grad()
def _begin_as(model: PeftModel, ids: torch.Tensor, *, is_prefix: bool) -> None:
    """The virtual tokens as the base computes the words `ids`: their embeddings, or their keys and values."""
    base, encoder = model.get_base_model(), model.prompt_encoder["default"]
    ids = ids.to(encoder.embedding.weight.device)
    if is_prefix:
        cache = base(input_ids=ids[None], use_cache=True).past_key_values
        stored = prompt_embeddings_from_past_key_values(cache, num_virtual_tokens=len(ids))
    else:
        stored = base.get_input_embeddings()(ids)
    encoder.embedding.weight.copy_(stored)


def _count_from_the_row(model: PeftModel, num_virtual: int) -> None:
    """Whoever asks for the logits of some columns counts from a row's own first token; the virtual ones stand before it.

    With the adapter off PEFT gives the base ids and no embeddings, and nothing is moved.
    """

    def shifted(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        columns = kwargs.get("logits_to_keep")
        if isinstance(columns, torch.Tensor) and kwargs.get("inputs_embeds") is not None:
            kwargs = kwargs | {"logits_to_keep": columns + num_virtual}
        return args, kwargs

    model.get_base_model().register_forward_pre_hook(shifted, with_kwargs=True)


def save_trained(model: Any, folder: Path, base: Base, recipe: Recipe) -> AdapterInfo:
    """What was learned, in `folder`: an adapter, or a whole model in the precision that an engine of this device computes in.

    Raises StorageFull.
    """
    if not isinstance(recipe.adapter, FullAdapter):
        return save_adapter(model, folder, base, recipe)
    dtype = torch.float32 if model.device.type == "cpu" else torch.bfloat16
    return save_whole(model, in_dtype(model.state_dict(), dtype), folder, base, dtype=str(dtype).removeprefix("torch."))


def folder_name(recipe: Recipe) -> str:
    """Of what a run makes, among its artifacts."""
    return "model" if isinstance(recipe.adapter, FullAdapter) else "adapter"
