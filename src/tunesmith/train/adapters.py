"""What trains: from a recipe's adapter to PEFT's configuration. Nobody else names a class of PEFT. Knows no rows and no steps."""

from peft import LoraConfig, PeftConfig

from tunesmith.models.catalog import Base
from tunesmith.recipes.adapter import LoraAdapter
from tunesmith.recipes.run import Recipe


def peft_config(recipe: Recipe, base: Base) -> PeftConfig | None:
    """PEFT's configuration of `recipe.adapter` on `base`; None when there is no adapter, and all weights train."""
    adapter = recipe.adapter
    assert isinstance(adapter, LoraAdapter), f"{adapter.type} has no trainer"
    return _lora(adapter)


def _lora(adapter: LoraAdapter) -> LoraConfig:
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets),
        use_rslora=adapter.use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )
