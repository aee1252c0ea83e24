"""What to measure after training."""

from typing import Annotated

from pydantic import Field

from tunesmith.recipes.method import Part


class EvaluationRecipe(Part):
    """Measures taken on the held-out rows at the end of a run (and every `every_steps`)."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between two measurements of the held-out loss; None means at the end of each epoch at most ten times a run."""
    verify: bool = True
    """Ask an engine for what was trained before the run succeeds: the same token ids, the same log-probabilities. Off only where
    the model is thrown away."""
