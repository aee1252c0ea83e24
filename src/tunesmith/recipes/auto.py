"""The numbers that a recipe leaves open, chosen from the base's width and the number of rows. Pure functions."""

import math

from tunesmith.recipes.method import DpoMethod
from tunesmith.recipes.run import Recipe

RATES: dict[str, float] = {"dpo": 1 / 20, "kto": 1 / 20, "orpo": 1 / 4, "reward": 1 / 2}
"""Method -> its learning rate as a share of supervised fine-tuning's on the same base and adapter; 1 where it is not named.

Sources: dpo and kto 1e-6 for all weights where sft has 2e-5 (TRL's defaults), 5e-6 for LoRA where sft has 1e-4 (LLaMA-Factory's
examples); alignment-handbook's DPO is half of that. ORPO 5e-6 for all weights (alignment-handbook; its authors 8e-6). A reward
model 1e-4 for LoRA (TRL's default), where alignment-handbook's sft has 2e-4.
"""

SOFT_RATES: dict[str, float] = {"prompt": 0.05, "p_tuning": 1e-3, "prefix": 0.4}
"""Kind of soft prompt -> its learning rate, at any width: few numbers must move far.

Source: measured on the built-in base (docs/results.md; at a fifth of it prefix learns nothing in 200 steps). The authors of
prompt tuning use 0.3 with another optimizer (Lester et al. 2021, section 3), PEFT's documentation 0.03.
"""


def learning_rate(hidden_size: int, adapter: str = "lora") -> float:
    """Peak LoRA learning rate of supervised fine-tuning by width: 5e-4 * (2000 / hidden_size) ** 0.781.

    Source: the fit for Llama models in Schulman et al., "LoRA Without Regret" (2025), which is ten times their fit for all
    weights. Kept between 5e-5 and 5e-3, since the fit saw no width under 2,048. All weights take a tenth of it.
    """
    if adapter in SOFT_RATES:
        return SOFT_RATES[adapter]
    return (0.1 if adapter == "full" else 1.0) * min(5e-3, max(5e-5, 5e-4 * math.pow(2000 / hidden_size, 0.781)))


def epochs(num_rows: int) -> float:
    """3, more for under 34 rows, fewer for over 8,333: the rule of OpenAI's cookbook (Chat_finetuning_data_prep)."""
    if num_rows * 3 < 100:
        return float(min(25, max(1, 100 // max(1, num_rows))))
    return float(max(1, 25_000 // num_rows)) if num_rows * 3 > 25_000 else 3.0


def batch_size(num_rows: int) -> int:
    """About 0.2 % of the rows as OpenAI once documented, but between 8 and 32, so that a small CPU run is not all overhead."""
    return min(32, max(8, 2 ** round(math.log2(max(1, num_rows * 0.002))))) if num_rows >= 8 else max(1, num_rows)


def num_steps(num_rows: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of a run. Every step has a full batch; a batch may reach into the next epoch. At least 1."""
    return max(1, math.ceil(epochs * num_rows / batch_size))


def resolve(recipe: Recipe, *, hidden_size: int, num_rows: int, max_positions: int) -> Recipe:
    """The recipe with every open number of its method filled in; what stands there already stays."""
    method = recipe.method
    size = method.batch_size or batch_size(num_rows)
    beta = {"beta": method.beta or (2.0 if method.loss == "simpo" else 0.1)} if isinstance(method, DpoMethod) else {}
    return recipe.model_copy(update={"method": method.model_copy(update=beta | {
        "epochs": method.epochs or epochs(num_rows),
        "batch_size": size,
        "micro_batch_size": method.micro_batch_size or size,
        "learning_rate": method.learning_rate or learning_rate(hidden_size, recipe.adapter.type) * RATES.get(method.type, 1.0),
        "max_length": method.max_length or max_positions,
    })})
