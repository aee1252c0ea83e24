"""What to train on: files, how to read them, what to hold out, what to rehearse. No reading happens here."""

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipes.method import Part

Format = Literal[
    "auto", "chat", "alpaca", "sharegpt", "prompt_completion", "question_answer", "preference", "kto", "reinforcement", "text",
    "segments",
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


class Reading(Part):
    """How the rows of a file are read."""

    format: Format = "auto"
    """The rows' shape; auto recognises it from the first row's fields."""
    map: dict[str, str] = Field(default_factory=dict)
    """Our field name -> the file's column, where they differ, such as {"question": "ask"}."""
    turns: dict[Literal["role", "content"], str] = Field(default_factory=dict)
    """What a turn of a conversation calls its role and its content, where it is neither `role`, `content` nor `from`, `value`."""
    roles: dict[str, Literal["system", "user", "assistant", "tool", "function_call"]] = Field(default_factory=dict)
    """The file's name of a role -> ours, beyond those that are known; function_call's content is a tool call as JSON."""
    values: dict[Name, str] = Field(default_factory=dict)
    """What stands for a placeholder: {"name": "Ada"} writes Ada for each {{name}} of the file."""
    placeholders: Literal["refuse", "keep"] = "refuse"
    """A {{name}} without a value makes its row unusable; keep takes it as text, for files that are about such text."""


class DataRecipe(Reading):
    """The rows of a run."""

    train: str = Field(min_length=1)
    """A JSON, JSONL, CSV or Parquet file, or another source (docs/data.md); in a run folder, a name relative to the folder."""
    validation: str | None = None
    """Held-out rows, as `train`; None holds out `held_out` of the training rows."""
    source: str = ""
    """Where the rows came from, if not from a file: written when a run is laid out, read by people only."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """Rows that cannot be used stop the run; skip leaves them out instead, and lists each in the run's report."""
    duplicates: Literal["keep", "skip"] = "keep"
    """Rows that repeat an earlier one are counted and trained on; skip leaves them out."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training rows kept back for evaluation when `validation` is None."""
    rehearsal: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of rows, of all rows of an epoch, made from the base's own skills (tunesmith/tiny only) against forgetting."""
