"""What to train on: files, how to read them, what to hold out, what to rehearse. No reading happens here."""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipes.method import Part

Format = Literal[
    "auto", "chat", "alpaca", "sharegpt", "prompt_completion", "question_answer", "preference", "kto", "reinforcement", "text"
]


class DataRecipe(Part):
    """The rows of a run."""

    train: str = Field(min_length=1)
    """Path of a JSON, JSONL, CSV or Parquet file; in a run folder, a name relative to the folder."""
    validation: str | None = None
    """Path of held-out rows; None holds out `held_out` of the training rows."""
    format: Format = "auto"
    """The rows' shape; auto recognises it from the first row's fields."""
    map: dict[str, str] = Field(default_factory=dict)
    """Our field name -> the file's column, where they differ, such as {"question": "ask"}."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """Rows that cannot be used stop the run; skip leaves them out instead, and lists each in the run's report."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training rows kept back for evaluation when `validation` is None."""
    rehearsal: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of rows, of all rows of an epoch, made from the base's own skills (tunesmith/tiny only) against forgetting."""
