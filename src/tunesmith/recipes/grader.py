"""What gives a score to an answer: OpenAI's graders, as they are asked for. No grading, no network.

Texts may hold templates, `{{ item.answer }}` or `{{ sample.output_text }}`; `graders/` fills them in and computes the scores.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tunesmith.recipes.method import Part

Text = Annotated[str, Field(max_length=1_000_000)]
Name = Annotated[str, Field(max_length=200)]
Threshold = Annotated[float, Field(allow_inf_nan=False)]
Metric = Literal[
    "fuzzy_match", "bleu", "gleu", "meteor", "cosine", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


class ContentPart(Part):
    """A part of a message to a judge. Of these only text can be judged; the others are refused by name."""

    type: Literal["input_text", "output_text", "input_image", "input_audio"]
    """What the part holds."""
    text: Text | None = None
    """Of the text types."""
    image_url: str | None = None
    """Of input_image."""
    file_id: str | None = None
    """Of input_image."""
    detail: str | None = None
    """Of input_image."""
    input_audio: dict[str, str] | None = None
    """Of input_audio."""


class InputMessage(Part):
    """One message of a conversation that a judge, or the model of an eval run, is asked to go on with."""

    type: Literal["message"] = "message"
    """OpenAI's tag."""
    role: Literal["user", "assistant", "system", "developer"]
    """Who speaks."""
    content: Text | ContentPart | Annotated[list[Text | ContentPart], Field(min_length=1, max_length=1000)]
    """A text, a part, or several; may hold templates."""


Messages = Annotated[list[InputMessage], Field(min_length=1, max_length=1000)]


class JudgeSampling(Part):
    """How a judge samples; what is None is the engine's default."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of probability to sample from."""
    seed: int | None = None
    """Fixes the judge's luck."""
    max_completions_tokens: Annotated[int, Field(ge=1)] | None = None
    """OpenAI's spelling of the most tokens that the judge may write."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The same, as everywhere else."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """Passed on to the engine."""


class StringCheck(Part):
    """1 when two texts compare as asked, else 0."""

    type: Literal["string_check"]
    """The grader."""
    name: Name = ""
    """For people."""
    input: Text
    """Usually the answer."""
    reference: Text
    """Usually what is right."""
    operation: Literal["eq", "ne", "neq", "like", "ilike"]
    """Equal, not equal (in two spellings), contains, contains in any case."""


class TextSimilarity(Part):
    """How near two texts are, from 0 to 1."""

    type: Literal["text_similarity"] = "text_similarity"
    """The grader."""
    name: Name = ""
    """For people."""
    input: Text
    """Usually the answer."""
    reference: Text
    """Usually what is right."""
    evaluation_metric: Metric
    """The measure."""
    pass_threshold: Threshold | None = None
    """In evals: the least score that passes."""


class ScoreModel(Part):
    """A number that a judge gives."""

    type: Literal["score_model"]
    """The grader."""
    name: Name = ""
    """For people."""
    model: Annotated[str, Field(min_length=1, max_length=500)]
    """The judge: a base, a fine-tuned model or an alias."""
    input: Messages
    """What the judge is asked."""
    range: Annotated[list[Threshold], Field(min_length=2, max_length=2)] | None = None
    """Least and greatest score, [0, 1] when left out; an answer beyond is moved to the nearest."""
    pass_threshold: Threshold | None = None
    """In evals: the least score that passes; the middle of the range when left out."""
    sampling_params: JudgeSampling | None = None
    """How the judge samples."""


class LabelModel(Part):
    """1 when a judge gives one of the passing labels, else 0."""

    type: Literal["label_model"]
    """The grader."""
    name: Name = ""
    """For people."""
    model: Annotated[str, Field(min_length=1, max_length=500)]
    """The judge: a base, a fine-tuned model or an alias."""
    input: Messages
    """What the judge is asked."""
    labels: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=200)]
    """What it may answer; it can answer nothing else."""
    passing_labels: Annotated[list[str], Field(max_length=200)]
    """Those of the labels that are good."""
    sampling_params: JudgeSampling | None = None
    """How the judge samples."""


class Python(Part):
    """A function `grade(sample, item)` of the client's. Its code is kept as text and never run outside the jail."""

    type: Literal["python"]
    """The grader."""
    name: Name = ""
    """For people."""
    source: Annotated[str, Field(max_length=256 * 1024)]
    """The code."""
    image_tag: str | None = None
    """OpenAI's name of the environment that it runs in."""
    pass_threshold: Threshold | None = None
    """In evals: the least score that passes."""


Single = Annotated[StringCheck | TextSimilarity | ScoreModel | LabelModel | Python, Field(discriminator="type")]


class Multi(Part):
    """Several graders, and a formula that makes one score of theirs."""

    type: Literal["multi"]
    """The grader."""
    name: Name = ""
    """For people."""
    graders: Annotated[dict[Annotated[str, Field(max_length=64)], Single], Field(min_length=1, max_length=50)]
    """Name in the formula -> grader. OpenAI's specification has one grader here, its guide a table: both are read."""
    calculate_output: Annotated[str, Field(min_length=1, max_length=1000)]
    """The formula: + - * / ^, parentheses, min max abs floor ceil exp sqrt log."""

    @field_validator("graders", mode="before")
    @classmethod
    def _of_one(cls, value: Any) -> Any:
        """One grader as a table of one, under its name."""
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            return {value.get("name") or "grader": value}
        return value


Grader = Annotated[StringCheck | TextSimilarity | ScoreModel | LabelModel | Python | Multi, Field(discriminator="type")]
"""What `graders/run` takes, and the reward of reinforcement fine-tuning."""
Criterion = Single
"""What an eval takes: OpenAI has no `multi` there."""
